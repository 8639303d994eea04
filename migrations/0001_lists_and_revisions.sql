ALTER TABLE `integrations` ADD `revision` integer DEFAULT 1 NOT NULL;--> statement-breakpoint
CREATE INDEX `integrations_by_created_at` ON `integrations` (`organization_id`,`created_at`,`integration_id`);--> statement-breakpoint
CREATE INDEX `integrations_by_provider` ON `integrations` (`organization_id`,`provider`,`created_at`,`integration_id`);--> statement-breakpoint
CREATE INDEX `integrations_by_status` ON `integrations` (`organization_id`,`status`,`created_at`,`integration_id`);--> statement-breakpoint
CREATE INDEX `integrations_by_provider_status` ON `integrations` (`organization_id`,`provider`,`status`,`created_at`,`integration_id`);--> statement-breakpoint
ALTER TABLE `phone_numbers` ADD `revision` integer DEFAULT 1 NOT NULL;--> statement-breakpoint
CREATE INDEX `phone_numbers_by_phone_number` ON `phone_numbers` (`organization_id`,`phone_number`);--> statement-breakpoint
CREATE INDEX `phone_numbers_by_status` ON `phone_numbers` (`organization_id`,`status`,`phone_number`);--> statement-breakpoint
CREATE INDEX `phone_numbers_by_integration_status` ON `phone_numbers` (`integration_id`,`organization_id`,`status`,`phone_number`);--> statement-breakpoint
CREATE INDEX `api_keys_by_created_at` ON `api_keys` (`organization_id`,`created_at`,`key_id`);--> statement-breakpoint
CREATE INDEX `audit_events_by_action` ON `audit_events` (`organization_id`,`action`,`event_id`);--> statement-breakpoint
CREATE INDEX `audit_events_by_target` ON `audit_events` (`organization_id`,`target_id`,`event_id`);--> statement-breakpoint
CREATE INDEX `audit_events_by_actor` ON `audit_events` (`organization_id`,`actor_key_id`,`event_id`);