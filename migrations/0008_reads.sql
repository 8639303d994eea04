ALTER TABLE `organizations` ADD `read_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
UPDATE `organizations` SET
	`read_count` = (SELECT count(*) FROM `audit_events` WHERE `audit_events`.`organization_id` = `organizations`.`organization_id` AND `audit_events`.`action` = 'credentials.read'),
	`audit_event_count` = `audit_event_count` - (SELECT count(*) FROM `audit_events` WHERE `audit_events`.`organization_id` = `organizations`.`organization_id` AND `audit_events`.`action` = 'credentials.read');--> statement-breakpoint
DROP TRIGGER `audit_events_count_inserted`;--> statement-breakpoint
CREATE TRIGGER `audit_events_count_inserted` AFTER INSERT ON `audit_events` BEGIN
	UPDATE `organizations` SET
		`audit_event_count` = `audit_event_count` + (NEW.`action` <> 'credentials.read' AND NEW.`action` NOT GLOB '*_refused'),
		`refusal_count` = `refusal_count` + (NEW.`action` GLOB '*_refused'),
		`read_count` = `read_count` + (NEW.`action` = 'credentials.read'),
		`last_sequence` = max(`last_sequence`, NEW.`sequence`),
		`last_event_at` = max(`last_event_at`, NEW.`created_at`)
	WHERE `organization_id` = NEW.`organization_id`;
END;--> statement-breakpoint
DROP TRIGGER `audit_events_count_deleted`;--> statement-breakpoint
CREATE TRIGGER `audit_events_count_deleted` AFTER DELETE ON `audit_events` BEGIN
	UPDATE `organizations` SET
		`audit_event_count` = `audit_event_count` - (OLD.`action` <> 'credentials.read' AND OLD.`action` NOT GLOB '*_refused'),
		`refusal_count` = `refusal_count` - (OLD.`action` GLOB '*_refused'),
		`read_count` = `read_count` - (OLD.`action` = 'credentials.read')
	WHERE `organization_id` = OLD.`organization_id`;
END;
