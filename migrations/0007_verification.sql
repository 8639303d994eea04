ALTER TABLE `organizations` ADD `account_salt` text;--> statement-breakpoint
ALTER TABLE `organizations` ADD `refused_check_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `refused_checks_since` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `checks_stopped_until` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
UPDATE `organizations` SET `account_salt` = lower(hex(randomblob(32)));--> statement-breakpoint
CREATE TRIGGER `organizations_account_salt` AFTER INSERT ON `organizations` WHEN NEW.`account_salt` IS NULL BEGIN
	UPDATE `organizations` SET `account_salt` = lower(hex(randomblob(32))) WHERE `organization_id` = NEW.`organization_id`;
END;--> statement-breakpoint
ALTER TABLE `integrations` ADD `account_hint` text;--> statement-breakpoint
ALTER TABLE `integrations` ADD `account_fingerprint` text;--> statement-breakpoint
ALTER TABLE `integrations` ADD `verification_status` text DEFAULT 'unverified' NOT NULL CONSTRAINT "integrations_verification_status" CHECK("verification_status" IN ('unverified', 'verified', 'limited', 'refused', 'unreachable'));--> statement-breakpoint
ALTER TABLE `integrations` ADD `verification_checked_at` integer;--> statement-breakpoint
ALTER TABLE `integrations` ADD `verification_provider_status` integer;--> statement-breakpoint
ALTER TABLE `integrations` ADD `verification_provider_code` text;--> statement-breakpoint
ALTER TABLE `integrations` ADD `last_verdict` text CONSTRAINT "integrations_last_verdict" CHECK("last_verdict" IN ('accepted', 'doubted', 'refused'));--> statement-breakpoint
ALTER TABLE `integrations` ADD `check_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `integrations` ADD `recheck_from` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `integrations` ADD `checking_until` integer;--> statement-breakpoint
CREATE INDEX `integrations_by_verification` ON `integrations` (`organization_id`,`verification_status`,`created_at`,`integration_id`);--> statement-breakpoint
CREATE INDEX `integrations_by_provider_verification` ON `integrations` (`organization_id`,`provider`,`verification_status`,`created_at`,`integration_id`);--> statement-breakpoint
CREATE INDEX `integrations_by_status_verification` ON `integrations` (`organization_id`,`status`,`verification_status`,`created_at`,`integration_id`);--> statement-breakpoint
CREATE INDEX `integrations_by_provider_status_verification` ON `integrations` (`organization_id`,`provider`,`status`,`verification_status`,`created_at`,`integration_id`);--> statement-breakpoint
CREATE INDEX `integrations_by_recheck_from` ON `integrations` (`recheck_from`);--> statement-breakpoint
CREATE INDEX `integrations_by_checking_until` ON `integrations` (`checking_until`) WHERE "integrations"."checking_until" is not null;--> statement-breakpoint
ALTER TABLE `phone_numbers` ADD `sip_transport` text CONSTRAINT "phone_numbers_sip_transport" CHECK("sip_transport" IN ('auto', 'udp', 'tcp', 'tls'));--> statement-breakpoint
UPDATE `phone_numbers` SET `sip_transport` = 'auto' WHERE `provider` = 'sip';
