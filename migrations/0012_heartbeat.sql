CREATE TABLE `heartbeats` (
	`source` text PRIMARY KEY NOT NULL,
	`beat_at` integer NOT NULL
) STRICT, WITHOUT ROWID;
--> statement-breakpoint
INSERT INTO `heartbeats` VALUES ('primary', unixepoch());
