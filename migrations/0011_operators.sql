CREATE TABLE `operator_idempotency_keys` (
	`operator_key_id` text NOT NULL,
	`idempotency_key` text NOT NULL,
	`method` text NOT NULL,
	`path` text NOT NULL,
	`organization_id` text NOT NULL,
	`event_id` text NOT NULL,
	`fingerprint` text NOT NULL,
	`created_at` integer NOT NULL,
	PRIMARY KEY(`operator_key_id`, `idempotency_key`, `method`, `path`)
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE INDEX `operator_idempotency_keys_by_created_at` ON `operator_idempotency_keys` (`created_at`);--> statement-breakpoint
CREATE TABLE `operator_keys` (
	`operator_key_id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`key_hash` text NOT NULL,
	`prefix` text NOT NULL,
	`permissions` text NOT NULL,
	`status` text NOT NULL,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`last_used_at` integer,
	CONSTRAINT "operator_keys_status" CHECK("operator_keys"."status" IN ('active', 'revoked'))
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE UNIQUE INDEX `operator_keys_key_hash_unique` ON `operator_keys` (`key_hash`);--> statement-breakpoint
ALTER TABLE `organizations` ADD `name` text;--> statement-breakpoint
ALTER TABLE `organizations` ADD `name_folded` text;--> statement-breakpoint
ALTER TABLE `organizations` ADD `metadata` text DEFAULT '{}' NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `created_event_id` text;--> statement-breakpoint
ALTER TABLE `organizations` ADD `is_offboarding` integer DEFAULT 0 NOT NULL CONSTRAINT "organizations_is_offboarding" CHECK("is_offboarding" IN (0, 1));--> statement-breakpoint
-- What an interrupted command has left behind, the cron deletes.
UPDATE `organizations` SET `is_offboarding` = 1
WHERE `status` = 'offboarded' AND `integration_count` + `phone_number_count` + `api_key_count` > 0;--> statement-breakpoint
CREATE INDEX `organizations_by_created_at` ON `organizations` (`created_at`,`organization_id`);--> statement-breakpoint
CREATE INDEX `organizations_by_status` ON `organizations` (`status`,`is_offboarding`,`created_at`,`organization_id`);--> statement-breakpoint
CREATE INDEX `organizations_by_tier` ON `organizations` (`tier`,`created_at`,`organization_id`);--> statement-breakpoint
CREATE INDEX `organizations_by_tier_status` ON `organizations` (`tier`,`status`,`is_offboarding`,`created_at`,`organization_id`);--> statement-breakpoint
CREATE INDEX `organizations_by_name` ON `organizations` (`name_folded`,`organization_id`);--> statement-breakpoint
CREATE INDEX `organizations_by_status_name` ON `organizations` (`status`,`is_offboarding`,`name_folded`,`organization_id`);--> statement-breakpoint
CREATE INDEX `organizations_by_tier_name` ON `organizations` (`tier`,`name_folded`,`organization_id`);--> statement-breakpoint
CREATE INDEX `organizations_by_tier_status_name` ON `organizations` (`tier`,`status`,`is_offboarding`,`name_folded`,`organization_id`);--> statement-breakpoint
CREATE INDEX `audit_events_by_operator` ON `audit_events` (`created_at`,`organization_id`,`sequence`) WHERE "audit_events"."actor_type" = 'operator';--> statement-breakpoint
-- What the Worker of before 0009 and of before 0010 needed.
DROP TRIGGER `integrations_unfold_renamed`;--> statement-breakpoint
DROP TRIGGER `phone_numbers_count_inserted`;--> statement-breakpoint
CREATE TRIGGER `phone_numbers_count_inserted` AFTER INSERT ON `phone_numbers` BEGIN
	UPDATE `organizations` SET
		`phone_number_count` = `phone_number_count` + 1,
		`unconfirmed_number_count` = `unconfirmed_number_count` + (NEW.`ownership` = 'unconfirmed')
	WHERE `organization_id` = NEW.`organization_id`;
	UPDATE `integrations` SET `phone_number_count` = `phone_number_count` + 1
	WHERE `organization_id` = NEW.`organization_id` AND `integration_id` = NEW.`integration_id`;
END;--> statement-breakpoint
DROP TRIGGER `phone_numbers_count_deleted`;--> statement-breakpoint
CREATE TRIGGER `phone_numbers_count_deleted` AFTER DELETE ON `phone_numbers` BEGIN
	UPDATE `organizations` SET
		`phone_number_count` = `phone_number_count` - 1,
		`unconfirmed_number_count` = `unconfirmed_number_count` - (OLD.`ownership` = 'unconfirmed')
	WHERE `organization_id` = OLD.`organization_id`;
	UPDATE `integrations` SET `phone_number_count` = `phone_number_count` - 1
	WHERE `organization_id` = OLD.`organization_id` AND `integration_id` = OLD.`integration_id`;
END;--> statement-breakpoint
ALTER TABLE `organizations` DROP COLUMN `sip_number_count`;--> statement-breakpoint
ALTER TABLE `organizations` DROP COLUMN `max_sip_numbers`;
