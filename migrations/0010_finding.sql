ALTER TABLE `api_keys` ADD `revision` integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE `integrations` ADD `name_folded` text;--> statement-breakpoint
-- SQLite folds ASCII. Of other names the cron does it.
UPDATE `integrations` SET `name_folded` = lower(`name`) WHERE `name` NOT GLOB '*[^ -~]*';--> statement-breakpoint
-- The Worker of before this migration renames without folding. (Names that differ in the case of ASCII fold alike.)
CREATE TRIGGER `integrations_unfold_renamed` AFTER UPDATE OF `name` ON `integrations`
WHEN lower(OLD.`name`) <> lower(NEW.`name`) AND OLD.`name_folded` IS NEW.`name_folded` BEGIN
	UPDATE `integrations` SET `name_folded` = NULL
	WHERE `organization_id` = NEW.`organization_id` AND `integration_id` = NEW.`integration_id`;
END;--> statement-breakpoint
CREATE INDEX `integrations_by_name` ON `integrations` (`organization_id`,`name_folded`,`integration_id`);--> statement-breakpoint
CREATE INDEX `integrations_unfolded` ON `integrations` (`organization_id`,`integration_id`) WHERE "integrations"."name_folded" is null;--> statement-breakpoint
CREATE INDEX `phone_numbers_by_provider` ON `phone_numbers` (`organization_id`,`provider`,`phone_number`);--> statement-breakpoint
CREATE INDEX `phone_numbers_by_agent` ON `phone_numbers` (`organization_id`,`assigned_agent_id`,`phone_number`) WHERE "phone_numbers"."assigned_agent_id" is not null;