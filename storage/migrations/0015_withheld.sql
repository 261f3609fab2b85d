CREATE INDEX events_withheld ON events (room_num, pos) WHERE (flags & 4) <> 0;
