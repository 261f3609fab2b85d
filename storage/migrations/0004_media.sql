CREATE TABLE media (
	tenant TEXT NOT NULL,
	media_id TEXT NOT NULL,
	user_id TEXT NOT NULL,
	created_ts BIGINT NOT NULL,
	expires_ts BIGINT NOT NULL,
	file TEXT NOT NULL,
	content_type TEXT NOT NULL,
	filename TEXT NOT NULL,
	size BIGINT NOT NULL,
	sha256 BYTEA,
	PRIMARY KEY (tenant, media_id)
) WITHOUT ROWID;

CREATE INDEX media_user ON media (user_id);

CREATE INDEX media_pending ON media (user_id, expires_ts) WHERE expires_ts > 0;

CREATE TABLE media_thumbnails (
	tenant TEXT NOT NULL,
	media_id TEXT NOT NULL,
	variant TEXT NOT NULL,
	file TEXT NOT NULL,
	content_type TEXT NOT NULL,
	size BIGINT NOT NULL,
	sha256 BYTEA,
	failure TEXT NOT NULL,
	created_ts BIGINT NOT NULL,
	PRIMARY KEY (tenant, media_id, variant)
) WITHOUT ROWID;

CREATE TABLE media_removals (
	tenant TEXT NOT NULL,
	file TEXT NOT NULL,
	removed_ts BIGINT NOT NULL,
	PRIMARY KEY (tenant, file)
) WITHOUT ROWID;
