ALTER TABLE `audit_events` ADD `reason` text;--> statement-breakpoint
ALTER TABLE `organizations` ADD `unconfirmed_number_count` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE `organizations` ADD `max_unconfirmed_numbers` integer;--> statement-breakpoint
UPDATE `organizations` SET `unconfirmed_number_count` = `phone_number_count`, `max_unconfirmed_numbers` = `max_sip_numbers`;--> statement-breakpoint
ALTER TABLE `phone_numbers` ADD `ownership` text DEFAULT 'unconfirmed' NOT NULL CONSTRAINT "phone_numbers_ownership" CHECK("ownership" IN ('confirmed', 'unconfirmed'));--> statement-breakpoint
ALTER TABLE `phone_numbers` ADD `ownership_due_at` integer DEFAULT 1;--> statement-breakpoint
CREATE INDEX `phone_numbers_by_ownership` ON `phone_numbers` (`organization_id`,`ownership`,`phone_number`);--> statement-breakpoint
CREATE INDEX `phone_numbers_by_status_ownership` ON `phone_numbers` (`organization_id`,`status`,`ownership`,`phone_number`);--> statement-breakpoint
CREATE INDEX `phone_numbers_by_integration_ownership` ON `phone_numbers` (`integration_id`,`organization_id`,`ownership`,`phone_number`);--> statement-breakpoint
CREATE INDEX `phone_numbers_by_integration_status_ownership` ON `phone_numbers` (`integration_id`,`organization_id`,`status`,`ownership`,`phone_number`);--> statement-breakpoint
CREATE INDEX `phone_numbers_by_ownership_due_at` ON `phone_numbers` (`ownership_due_at`,`integration_id`) WHERE "phone_numbers"."ownership_due_at" is not null;--> statement-breakpoint
DROP TRIGGER `phone_numbers_count_inserted`;--> statement-breakpoint
CREATE TRIGGER `phone_numbers_count_inserted` AFTER INSERT ON `phone_numbers` BEGIN
	UPDATE `organizations` SET
		`phone_number_count` = `phone_number_count` + 1,
		`sip_number_count` = `sip_number_count` + (NEW.`integration_id` IS NULL),
		`unconfirmed_number_count` = `unconfirmed_number_count` + (NEW.`ownership` = 'unconfirmed')
	WHERE `organization_id` = NEW.`organization_id`;
	UPDATE `integrations` SET `phone_number_count` = `phone_number_count` + 1
	WHERE `organization_id` = NEW.`organization_id` AND `integration_id` = NEW.`integration_id`;
END;--> statement-breakpoint
DROP TRIGGER `phone_numbers_count_deleted`;--> statement-breakpoint
CREATE TRIGGER `phone_numbers_count_deleted` AFTER DELETE ON `phone_numbers` BEGIN
	UPDATE `organizations` SET
		`phone_number_count` = `phone_number_count` - 1,
		`sip_number_count` = `sip_number_count` - (OLD.`integration_id` IS NULL),
		`unconfirmed_number_count` = `unconfirmed_number_count` - (OLD.`ownership` = 'unconfirmed')
	WHERE `organization_id` = OLD.`organization_id`;
	UPDATE `integrations` SET `phone_number_count` = `phone_number_count` - 1
	WHERE `organization_id` = OLD.`organization_id` AND `integration_id` = OLD.`integration_id`;
END;--> statement-breakpoint
CREATE TRIGGER `phone_numbers_count_confirmed` AFTER UPDATE OF `ownership` ON `phone_numbers`
WHEN OLD.`ownership` <> NEW.`ownership` BEGIN
	UPDATE `organizations` SET
		`unconfirmed_number_count` = `unconfirmed_number_count` + iif(NEW.`ownership` = 'unconfirmed', 1, -1)
	WHERE `organization_id` = NEW.`organization_id`;
END;
