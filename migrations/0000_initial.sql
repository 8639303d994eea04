CREATE TABLE `api_keys` (
	`key_id` text PRIMARY KEY NOT NULL,
	`organization_id` text NOT NULL,
	`user_id` text NOT NULL,
	`name` text NOT NULL,
	`role` text NOT NULL,
	`key_hash` text NOT NULL,
	`prefix` text NOT NULL,
	`status` text NOT NULL,
	`created_at` integer NOT NULL,
	`last_used_at` integer,
	`expires_at` integer,
	FOREIGN KEY (`organization_id`) REFERENCES `organizations`(`organization_id`) ON UPDATE no action ON DELETE restrict,
	CONSTRAINT "api_keys_role" CHECK("api_keys"."role" IN ('admin', 'agent_manager', 'user')),
	CONSTRAINT "api_keys_status" CHECK("api_keys"."status" IN ('active', 'revoked'))
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE UNIQUE INDEX `api_keys_key_hash_unique` ON `api_keys` (`key_hash`);--> statement-breakpoint
CREATE TABLE `audit_events` (
	`organization_id` text NOT NULL,
	`event_id` text NOT NULL,
	`action` text NOT NULL,
	`target_id` text NOT NULL,
	`actor_key_id` text,
	`request_id` text NOT NULL,
	`state` text NOT NULL,
	`created_at` integer NOT NULL,
	PRIMARY KEY(`organization_id`, `event_id`),
	CONSTRAINT "audit_events_action" CHECK("audit_events"."action" GLOB '[a-z]*.[a-z]*')
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE TABLE `credential_purges` (
	`kv_key` text PRIMARY KEY NOT NULL,
	`organization_id` text NOT NULL,
	`due_at` integer NOT NULL,
	`attempts` integer NOT NULL
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE INDEX `credential_purges_by_due_at` ON `credential_purges` (`due_at`);--> statement-breakpoint
CREATE TABLE `integrations` (
	`organization_id` text NOT NULL,
	`integration_id` text NOT NULL,
	`name` text NOT NULL,
	`provider` text NOT NULL,
	`category` text NOT NULL,
	`status` text NOT NULL,
	`credentials_version` text NOT NULL,
	`data_key` text NOT NULL,
	`kek_id` text NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	PRIMARY KEY(`organization_id`, `integration_id`),
	FOREIGN KEY (`organization_id`) REFERENCES `organizations`(`organization_id`) ON UPDATE no action ON DELETE restrict,
	CONSTRAINT "integrations_status" CHECK("integrations"."status" IN ('active', 'credentials_missing'))
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE TABLE `organizations` (
	`organization_id` text PRIMARY KEY NOT NULL,
	`tier` text NOT NULL,
	`created_at` integer NOT NULL,
	CONSTRAINT "organizations_organization_id" CHECK("organizations"."organization_id" GLOB 'org_*' AND substr("organizations"."organization_id", 5) NOT GLOB '*[^A-Za-z0-9_-]*' AND length("organizations"."organization_id") BETWEEN 5 AND 44),
	CONSTRAINT "organizations_tier" CHECK("organizations"."tier" IN ('starter', 'pro', 'enterprise'))
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE TABLE `phone_numbers` (
	`phone_number_id` text PRIMARY KEY NOT NULL,
	`organization_id` text NOT NULL,
	`integration_id` text,
	`phone_number` text NOT NULL,
	`provider` text NOT NULL,
	`status` text NOT NULL,
	`assigned_agent_id` text,
	`supports_inbound` integer NOT NULL,
	`supports_outbound` integer NOT NULL,
	`sip_trunk_name` text,
	`sip_username` text,
	`sip_server_address` text,
	`inbound_room_name` text,
	`media_encryption` text,
	`credentials_version` text,
	`data_key` text,
	`kek_id` text,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	FOREIGN KEY (`organization_id`) REFERENCES `organizations`(`organization_id`) ON UPDATE no action ON DELETE restrict,
	FOREIGN KEY (`organization_id`,`integration_id`) REFERENCES `integrations`(`organization_id`,`integration_id`) ON UPDATE no action ON DELETE restrict,
	CONSTRAINT "phone_numbers_phone_number" CHECK("phone_numbers"."phone_number" GLOB '+[1-9]*' AND substr("phone_numbers"."phone_number", 2) NOT GLOB '*[^0-9]*' AND length("phone_numbers"."phone_number") BETWEEN 8 AND 16),
	CONSTRAINT "phone_numbers_integration_id" CHECK(("phone_numbers"."integration_id" IS NULL) = ("phone_numbers"."provider" = 'sip')),
	CONSTRAINT "phone_numbers_status" CHECK("phone_numbers"."status" = iif("phone_numbers"."assigned_agent_id" IS NULL, 'free', 'assigned')),
	CONSTRAINT "phone_numbers_supports" CHECK("phone_numbers"."supports_inbound" IN (0, 1) AND "phone_numbers"."supports_outbound" IN (0, 1)),
	CONSTRAINT "phone_numbers_media_encryption" CHECK("phone_numbers"."media_encryption" IN ('disable', 'allow', 'require')),
	CONSTRAINT "phone_numbers_credentials" CHECK(("phone_numbers"."credentials_version" IS NULL) = ("phone_numbers"."data_key" IS NULL) AND ("phone_numbers"."data_key" IS NULL) = ("phone_numbers"."kek_id" IS NULL))
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
CREATE UNIQUE INDEX `phone_numbers_phone_number_unique` ON `phone_numbers` (`phone_number`);--> statement-breakpoint
CREATE INDEX `phone_numbers_by_integration` ON `phone_numbers` (`integration_id`,`organization_id`,`phone_number`,`phone_number_id`);