-- Where what is missing belongs: the first of the positions that are kept free for it, 0 for before everything that is known of the room.
ALTER TABLE missing_parents ADD COLUMN hole BIGINT NOT NULL DEFAULT 0;
