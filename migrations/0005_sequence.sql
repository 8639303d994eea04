DROP INDEX `audit_events_by_action`;--> statement-breakpoint
DROP INDEX `audit_events_by_target`;--> statement-breakpoint
DROP INDEX `audit_events_by_actor`;--> statement-breakpoint
ALTER TABLE `audit_events` ADD `sequence` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
-- Until now nothing told the order of the commits: the times come nearest to it.
UPDATE `audit_events` SET `sequence` = `numbered`.`sequence` FROM (
	SELECT `organization_id`, `event_id`, row_number() OVER (PARTITION BY `organization_id` ORDER BY `created_at`, `event_id`) AS `sequence`
	FROM `audit_events`
) AS `numbered`
WHERE `numbered`.`organization_id` = `audit_events`.`organization_id` AND `numbered`.`event_id` = `audit_events`.`event_id`;--> statement-breakpoint
CREATE INDEX `audit_events_by_created_at` ON `audit_events` (`organization_id`,`created_at`,`sequence`);--> statement-breakpoint
CREATE INDEX `audit_events_by_action` ON `audit_events` (`organization_id`,`action`,`created_at`,`sequence`);--> statement-breakpoint
CREATE INDEX `audit_events_by_target` ON `audit_events` (`organization_id`,`target_id`,`created_at`,`sequence`);--> statement-breakpoint
CREATE INDEX `audit_events_by_actor` ON `audit_events` (`organization_id`,`actor_key_id`,`created_at`,`sequence`);--> statement-breakpoint
ALTER TABLE `credential_purges` ADD `kek_id` text;--> statement-breakpoint
ALTER TABLE `key_encryption_keys` ADD `retired_at` integer;--> statement-breakpoint
ALTER TABLE `key_encryption_keys` ADD `rewrap_place` text;--> statement-breakpoint
ALTER TABLE `organizations` ADD `last_sequence` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `last_event_at` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `change_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
UPDATE `organizations` SET
	`last_sequence` = coalesce((SELECT max(`sequence`) FROM `audit_events` WHERE `audit_events`.`organization_id` = `organizations`.`organization_id`), 0),
	`last_event_at` = coalesce((SELECT max(`created_at`) FROM `audit_events` WHERE `audit_events`.`organization_id` = `organizations`.`organization_id`), 0);--> statement-breakpoint
DROP TRIGGER `audit_events_count_inserted`;--> statement-breakpoint
CREATE TRIGGER `audit_events_count_inserted` AFTER INSERT ON `audit_events` BEGIN
	UPDATE `organizations` SET
		`audit_event_count` = `audit_event_count` + (NEW.`action` NOT GLOB '*_refused'),
		`refusal_count` = `refusal_count` + (NEW.`action` GLOB '*_refused'),
		`last_sequence` = max(`last_sequence`, NEW.`sequence`),
		`last_event_at` = max(`last_event_at`, NEW.`created_at`)
	WHERE `organization_id` = NEW.`organization_id`;
END;--> statement-breakpoint
-- The Worker of before this migration, which runs on until the next is deployed, names no sequence.
CREATE TRIGGER `audit_events_sequence_missing` AFTER INSERT ON `audit_events` WHEN NEW.`sequence` = 0 BEGIN
	UPDATE `audit_events` SET (`sequence`, `created_at`) = (
		SELECT `last_sequence` + 1, max(`last_event_at`, NEW.`created_at`) FROM `organizations`
		WHERE `organization_id` = NEW.`organization_id`
	)
	WHERE `organization_id` = NEW.`organization_id` AND `event_id` = NEW.`event_id`;
	UPDATE `organizations` SET
		`last_sequence` = `last_sequence` + 1,
		`last_event_at` = max(`last_event_at`, NEW.`created_at`)
	WHERE `organization_id` = NEW.`organization_id`;
END;
