CREATE TABLE `idempotency_keys` (
	`organization_id` text NOT NULL,
	`actor_key_id` text NOT NULL,
	`idempotency_key` text NOT NULL,
	`method` text NOT NULL,
	`path` text NOT NULL,
	`event_id` text NOT NULL,
	`fingerprint` text NOT NULL,
	`findings` text NOT NULL,
	`created_at` integer NOT NULL,
	PRIMARY KEY(`organization_id`, `actor_key_id`, `idempotency_key`, `method`, `path`)
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE INDEX `idempotency_keys_by_created_at` ON `idempotency_keys` (`created_at`);--> statement-breakpoint
ALTER TABLE `credential_purges` ADD `first_due_at` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
UPDATE `credential_purges` SET `first_due_at` = `due_at`;--> statement-breakpoint
ALTER TABLE `organizations` ADD `status` text DEFAULT 'active' NOT NULL CONSTRAINT "organizations_status" CHECK("status" IN ('active', 'suspended', 'offboarded'));--> statement-breakpoint
CREATE INDEX `integrations_by_kek` ON `integrations` (`kek_id`);--> statement-breakpoint
CREATE INDEX `phone_numbers_by_kek` ON `phone_numbers` (`kek_id`) WHERE "phone_numbers"."kek_id" is not null;--> statement-breakpoint
CREATE INDEX `audit_events_by_actor_action` ON `audit_events` (`organization_id`,`actor_key_id`,`action`,`event_id`);
