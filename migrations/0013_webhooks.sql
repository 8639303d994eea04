CREATE TABLE `webhook_deliveries` (
	`organization_id` text NOT NULL,
	`delivery_id` text NOT NULL,
	`endpoint_id` text NOT NULL,
	`event_id` text NOT NULL,
	`event_type` text NOT NULL,
	`status` text NOT NULL,
	`attempts` integer NOT NULL,
	`created_at` integer NOT NULL,
	`attempted_at` integer NOT NULL,
	`next_attempt_at` integer,
	`response_status` integer,
	`response_body` text,
	`duration_ms` integer NOT NULL,
	`last_error` text,
	PRIMARY KEY(`organization_id`, `delivery_id`),
	FOREIGN KEY (`organization_id`,`endpoint_id`) REFERENCES `webhook_endpoints`(`organization_id`,`endpoint_id`) ON UPDATE no action ON DELETE restrict,
	CONSTRAINT "webhook_deliveries_status" CHECK("webhook_deliveries"."status" IN ('delivered', 'retrying', 'dead')),
	CONSTRAINT "webhook_deliveries_next_attempt_at" CHECK(("webhook_deliveries"."status" = 'retrying') = ("webhook_deliveries"."next_attempt_at" IS NOT NULL))
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE UNIQUE INDEX `webhook_deliveries_by_event` ON `webhook_deliveries` (`organization_id`,`endpoint_id`,`event_id`);--> statement-breakpoint
CREATE INDEX `webhook_deliveries_by_created_at` ON `webhook_deliveries` (`organization_id`,`endpoint_id`,`created_at`,`delivery_id`);--> statement-breakpoint
CREATE INDEX `webhook_deliveries_by_status` ON `webhook_deliveries` (`organization_id`,`endpoint_id`,`status`,`created_at`,`delivery_id`);--> statement-breakpoint
CREATE INDEX `webhook_deliveries_by_next_attempt_at` ON `webhook_deliveries` (`organization_id`,`endpoint_id`,`next_attempt_at`) WHERE "webhook_deliveries"."next_attempt_at" is not null;--> statement-breakpoint
CREATE INDEX `webhook_deliveries_by_attempted_at` ON `webhook_deliveries` (`attempted_at`);--> statement-breakpoint
CREATE TABLE `webhook_endpoints` (
	`organization_id` text NOT NULL,
	`endpoint_id` text NOT NULL,
	`url` text NOT NULL,
	`description` text,
	`events` text NOT NULL,
	`enabled` integer NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`revision` integer DEFAULT 1 NOT NULL,
	`verified_at` integer,
	`tested_at` integer,
	`test_response_status` integer,
	`test_duration_ms` integer,
	`test_error` text,
	`cursor_at` integer NOT NULL,
	`cursor_sequence` integer NOT NULL,
	`last_delivered_at` integer,
	`failing_since` integer,
	`last_error` text,
	`failed_attempt_count` integer DEFAULT 0 NOT NULL,
	`resting_until` integer DEFAULT 0 NOT NULL,
	`claim` text,
	`claimed_until` integer DEFAULT 0 NOT NULL,
	PRIMARY KEY(`organization_id`, `endpoint_id`),
	FOREIGN KEY (`organization_id`) REFERENCES `organizations`(`organization_id`) ON UPDATE no action ON DELETE restrict,
	CONSTRAINT "webhook_endpoints_enabled" CHECK("webhook_endpoints"."enabled" IN (0, 1))
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE INDEX `webhook_endpoints_by_created_at` ON `webhook_endpoints` (`organization_id`,`created_at`,`endpoint_id`);--> statement-breakpoint
CREATE TABLE `webhook_secrets` (
	`organization_id` text NOT NULL,
	`secret_id` text NOT NULL,
	`endpoint_id` text NOT NULL,
	`data_key` text NOT NULL,
	`kek_id` text NOT NULL,
	`created_at` integer NOT NULL,
	`ends_at` integer,
	PRIMARY KEY(`organization_id`, `secret_id`),
	FOREIGN KEY (`organization_id`,`endpoint_id`) REFERENCES `webhook_endpoints`(`organization_id`,`endpoint_id`) ON UPDATE no action ON DELETE restrict
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE INDEX `webhook_secrets_by_endpoint` ON `webhook_secrets` (`organization_id`,`endpoint_id`);--> statement-breakpoint
CREATE INDEX `webhook_secrets_by_kek` ON `webhook_secrets` (`kek_id`);--> statement-breakpoint
CREATE INDEX `webhook_secrets_by_ends_at` ON `webhook_secrets` (`ends_at`) WHERE "webhook_secrets"."ends_at" is not null;--> statement-breakpoint
-- What an endpoint has goes with it, whoever deletes it.
CREATE TRIGGER `webhook_endpoints_deleted` BEFORE DELETE ON `webhook_endpoints` BEGIN
	DELETE FROM `webhook_secrets` WHERE `organization_id` = OLD.`organization_id` AND `endpoint_id` = OLD.`endpoint_id`;
	DELETE FROM `webhook_deliveries` WHERE `organization_id` = OLD.`organization_id` AND `endpoint_id` = OLD.`endpoint_id`;
END;
