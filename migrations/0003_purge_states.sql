ALTER TABLE `credential_purges` ADD `state` text DEFAULT 'owed' NOT NULL CONSTRAINT "credential_purges_state" CHECK("state" IN ('intended', 'owed'));
