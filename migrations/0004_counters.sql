CREATE TABLE `key_encryption_keys` (
	`kek_id` text PRIMARY KEY NOT NULL,
	`check_value` text NOT NULL,
	`created_at` integer NOT NULL
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
DROP INDEX `audit_events_by_actor_action`;--> statement-breakpoint
DROP INDEX `credential_purges_by_due_at`;--> statement-breakpoint
CREATE INDEX `credential_purges_by_organization` ON `credential_purges` (`organization_id`,`due_at`);--> statement-breakpoint
ALTER TABLE `api_keys` ADD `created_by` text;--> statement-breakpoint
ALTER TABLE `api_keys` ADD `ended_at` integer;--> statement-breakpoint
CREATE INDEX `api_keys_by_created_by` ON `api_keys` (`organization_id`,`created_by`) WHERE "api_keys"."created_by" is not null;--> statement-breakpoint
UPDATE `api_keys` SET `ended_at` = unixepoch() WHERE `status` = 'revoked';--> statement-breakpoint
CREATE INDEX `api_keys_by_expires_at` ON `api_keys` (`expires_at`) WHERE ("api_keys"."expires_at" is not null and "api_keys"."ended_at" is null);--> statement-breakpoint
CREATE INDEX `api_keys_by_ended_at` ON `api_keys` (`ended_at`) WHERE "api_keys"."ended_at" is not null;--> statement-breakpoint
ALTER TABLE `integrations` ADD `phone_number_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `integration_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `phone_number_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `sip_number_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `api_key_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `audit_event_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `refusal_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `max_integrations` integer;--> statement-breakpoint
ALTER TABLE `organizations` ADD `max_phone_numbers` integer;--> statement-breakpoint
ALTER TABLE `organizations` ADD `max_sip_numbers` integer;--> statement-breakpoint
ALTER TABLE `organizations` ADD `max_api_keys` integer;--> statement-breakpoint
ALTER TABLE `organizations` ADD `max_audit_events` integer;--> statement-breakpoint
-- A refusal is not remembered any more.
DELETE FROM `idempotency_keys` WHERE NOT EXISTS (
	SELECT 1 FROM `audit_events`
	WHERE `audit_events`.`organization_id` = `idempotency_keys`.`organization_id`
		AND `audit_events`.`event_id` = `idempotency_keys`.`event_id`
		AND `audit_events`.`action` NOT GLOB '*_refused'
);--> statement-breakpoint
ALTER TABLE `idempotency_keys` DROP COLUMN `findings`;--> statement-breakpoint
UPDATE `integrations` SET `phone_number_count` = (
	SELECT count(*) FROM `phone_numbers`
	WHERE `phone_numbers`.`integration_id` = `integrations`.`integration_id`
		AND `phone_numbers`.`organization_id` = `integrations`.`organization_id`
);--> statement-breakpoint
UPDATE `organizations` SET
	`integration_count` = (SELECT count(*) FROM `integrations` WHERE `integrations`.`organization_id` = `organizations`.`organization_id`),
	`phone_number_count` = (SELECT count(*) FROM `phone_numbers` WHERE `phone_numbers`.`organization_id` = `organizations`.`organization_id`),
	`sip_number_count` = (SELECT count(*) FROM `phone_numbers` WHERE `phone_numbers`.`organization_id` = `organizations`.`organization_id` AND `phone_numbers`.`integration_id` IS NULL),
	`api_key_count` = (SELECT count(*) FROM `api_keys` WHERE `api_keys`.`organization_id` = `organizations`.`organization_id` AND `api_keys`.`ended_at` IS NULL),
	`audit_event_count` = (SELECT count(*) FROM `audit_events` WHERE `audit_events`.`organization_id` = `organizations`.`organization_id` AND `audit_events`.`action` NOT GLOB '*_refused'),
	`refusal_count` = (SELECT count(*) FROM `audit_events` WHERE `audit_events`.`organization_id` = `organizations`.`organization_id` AND `audit_events`.`action` GLOB '*_refused');--> statement-breakpoint
CREATE TRIGGER `integrations_count_inserted` AFTER INSERT ON `integrations` BEGIN
	UPDATE `organizations` SET `integration_count` = `integration_count` + 1 WHERE `organization_id` = NEW.`organization_id`;
END;--> statement-breakpoint
CREATE TRIGGER `integrations_count_deleted` AFTER DELETE ON `integrations` BEGIN
	UPDATE `organizations` SET `integration_count` = `integration_count` - 1 WHERE `organization_id` = OLD.`organization_id`;
END;--> statement-breakpoint
CREATE TRIGGER `phone_numbers_count_inserted` AFTER INSERT ON `phone_numbers` BEGIN
	UPDATE `organizations` SET
		`phone_number_count` = `phone_number_count` + 1,
		`sip_number_count` = `sip_number_count` + (NEW.`integration_id` IS NULL)
	WHERE `organization_id` = NEW.`organization_id`;
	UPDATE `integrations` SET `phone_number_count` = `phone_number_count` + 1
	WHERE `organization_id` = NEW.`organization_id` AND `integration_id` = NEW.`integration_id`;
END;--> statement-breakpoint
CREATE TRIGGER `phone_numbers_count_deleted` AFTER DELETE ON `phone_numbers` BEGIN
	UPDATE `organizations` SET
		`phone_number_count` = `phone_number_count` - 1,
		`sip_number_count` = `sip_number_count` - (OLD.`integration_id` IS NULL)
	WHERE `organization_id` = OLD.`organization_id`;
	UPDATE `integrations` SET `phone_number_count` = `phone_number_count` - 1
	WHERE `organization_id` = OLD.`organization_id` AND `integration_id` = OLD.`integration_id`;
END;--> statement-breakpoint
CREATE TRIGGER `phone_numbers_count_moved` AFTER UPDATE OF `integration_id` ON `phone_numbers`
WHEN OLD.`integration_id` IS NOT NEW.`integration_id` BEGIN
	UPDATE `integrations` SET `phone_number_count` = `phone_number_count` - 1
	WHERE `organization_id` = OLD.`organization_id` AND `integration_id` = OLD.`integration_id`;
	UPDATE `integrations` SET `phone_number_count` = `phone_number_count` + 1
	WHERE `organization_id` = NEW.`organization_id` AND `integration_id` = NEW.`integration_id`;
END;--> statement-breakpoint
CREATE TRIGGER `api_keys_count_inserted` AFTER INSERT ON `api_keys` WHEN NEW.`ended_at` IS NULL BEGIN
	UPDATE `organizations` SET `api_key_count` = `api_key_count` + 1 WHERE `organization_id` = NEW.`organization_id`;
	UPDATE `api_keys` SET `ended_at` = unixepoch() WHERE `key_id` = NEW.`key_id` AND `status` = 'revoked';
END;--> statement-breakpoint
CREATE TRIGGER `api_keys_end_revoked` AFTER UPDATE OF `status` ON `api_keys`
WHEN NEW.`status` = 'revoked' AND NEW.`ended_at` IS NULL BEGIN
	UPDATE `api_keys` SET `ended_at` = unixepoch() WHERE `key_id` = NEW.`key_id`;
END;--> statement-breakpoint
CREATE TRIGGER `api_keys_count_ended` AFTER UPDATE OF `ended_at` ON `api_keys`
WHEN OLD.`ended_at` IS NULL AND NEW.`ended_at` IS NOT NULL BEGIN
	UPDATE `organizations` SET `api_key_count` = `api_key_count` - 1 WHERE `organization_id` = NEW.`organization_id`;
END;--> statement-breakpoint
CREATE TRIGGER `api_keys_count_deleted` AFTER DELETE ON `api_keys` WHEN OLD.`ended_at` IS NULL BEGIN
	UPDATE `organizations` SET `api_key_count` = `api_key_count` - 1 WHERE `organization_id` = OLD.`organization_id`;
END;--> statement-breakpoint
CREATE TRIGGER `audit_events_count_inserted` AFTER INSERT ON `audit_events` BEGIN
	UPDATE `organizations` SET
		`audit_event_count` = `audit_event_count` + (NEW.`action` NOT GLOB '*_refused'),
		`refusal_count` = `refusal_count` + (NEW.`action` GLOB '*_refused')
	WHERE `organization_id` = NEW.`organization_id`;
END;--> statement-breakpoint
CREATE TRIGGER `audit_events_count_deleted` AFTER DELETE ON `audit_events` BEGIN
	UPDATE `organizations` SET
		`audit_event_count` = `audit_event_count` - (OLD.`action` NOT GLOB '*_refused'),
		`refusal_count` = `refusal_count` - (OLD.`action` GLOB '*_refused')
	WHERE `organization_id` = OLD.`organization_id`;
END;
