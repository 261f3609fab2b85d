# METADATA
# title: Clock
# description: |
#   Questions about the time of day and the day of the week in a time zone. Times of day are written "HH:MM" on a
#   24-hour clock; "24:00" is the end of the day. Forbid with `outside`, permit with `between`: a time that cannot be
#   read is never between and always outside.
package hansa.lib.clock

# METADATA
# description: |
#   True from `from` (included) to `to` (not included). When `from` is later than `to` the range runs over midnight:
#   between(t, "22:00", "06:00", tz). A range from a time to the same time is empty.
default between(_, _, _, _) := false

between(time_text, from, to, zone) if {
	start := _minute(from)
	end := _minute(to)
	start < end
	now := minute_of_day(time_text, zone)
	start <= now
	now < end
}

between(time_text, from, to, zone) if {
	start := _minute(from)
	start > _minute(to)
	minute_of_day(time_text, zone) >= start
}

between(time_text, from, to, zone) if {
	end := _minute(to)
	_minute(from) > end
	minute_of_day(time_text, zone) < end
}

# METADATA
# description: The opposite of between, and true also when the time, the range or the zone cannot be read.
default outside(_, _, _, _) := true

outside(time_text, from, to, zone) := false if between(time_text, from, to, zone)

# METADATA
# description: 'True when the day of the week is one of the days, each written "mon", "tue", "wed", "thu", "fri", "sat" or "sun".'
default on_day(_, _, _) := false

on_day(time_text, days, zone) if weekday(time_text, zone) in days

# METADATA
# description: The day of the week in the zone, three small letters.
weekday(time_text, zone) := lower(substring(time.weekday([time.parse_rfc3339_ns(time_text), zone]), 0, 3))

# METADATA
# description: Minutes since midnight in the zone.
minute_of_day(time_text, zone) := (hour * 60) + minute if {
	[hour, minute, _] := time.clock([time.parse_rfc3339_ns(time_text), zone])
}

_minute(text) := (hour * 60) + minute if {
	[hours, minutes] := split(text, ":")
	count(hours) == 2
	count(minutes) == 2
	hour := to_number(hours)
	minute := to_number(minutes)
	minute < 60
	(hour * 60) + minute <= 1440
}
