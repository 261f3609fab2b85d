package hansa.lib.clock_test

import data.hansa.lib.clock

test_between_includes_start if clock.between("2026-03-02T06:00:00Z", "06:00", "18:00", "UTC")

test_between_excludes_end if not clock.between("2026-03-02T18:00:00Z", "06:00", "18:00", "UTC")

test_between_last_minute if clock.between("2026-03-02T17:59:59Z", "06:00", "18:00", "UTC")

test_overnight_before_midnight if clock.between("2026-03-02T23:30:00Z", "22:00", "06:00", "UTC")

test_overnight_after_midnight if clock.between("2026-03-03T05:59:00Z", "22:00", "06:00", "UTC")

test_overnight_daytime_is_outside if not clock.between("2026-03-03T12:00:00Z", "22:00", "06:00", "UTC")

test_zone_is_used if {
	clock.between("2026-03-02T05:30:00Z", "06:00", "18:00", "Europe/Berlin")
	not clock.between("2026-03-02T05:30:00Z", "06:00", "18:00", "UTC")
}

test_summer_time_is_known if {
	clock.minute_of_day("2026-07-01T12:00:00Z", "Europe/Berlin") == 14 * 60
	clock.minute_of_day("2026-01-01T12:00:00Z", "Europe/Berlin") == 13 * 60
}

test_whole_day if {
	clock.between("2026-03-02T00:00:00Z", "00:00", "24:00", "UTC")
	clock.between("2026-03-02T23:59:59Z", "00:00", "24:00", "UTC")
}

test_same_start_and_end_is_empty if not clock.between("2026-03-02T08:00:00Z", "08:00", "08:00", "UTC")

test_unreadable_range_is_never_between if {
	not clock.between("2026-03-02T08:00:00Z", "8", "18:00", "UTC")
	not clock.between("2026-03-02T08:00:00Z", "00:00", "25:00", "UTC")
	not clock.between("2026-03-02T08:00:00Z", "00:00", "12:75", "UTC")
}

test_unreadable_range_is_outside if {
	clock.outside("2026-03-02T08:00:00Z", "8", "18:00", "UTC")
	clock.outside("2026-03-02T08:00:00Z", "00:00", "25:00", "UTC")
}

test_outside_is_the_opposite if {
	clock.outside("2026-03-02T20:00:00Z", "06:00", "18:00", "UTC")
	not clock.outside("2026-03-02T08:00:00Z", "06:00", "18:00", "UTC")
}

test_weekday_in_zone if {
	clock.weekday("2026-03-01T23:30:00Z", "UTC") == "sun"
	clock.weekday("2026-03-01T23:30:00Z", "Europe/Berlin") == "mon"
}

test_on_day if {
	clock.on_day("2026-03-02T12:00:00Z", ["mon", "tue"], "UTC")
	not clock.on_day("2026-03-01T12:00:00Z", ["mon", "tue"], "UTC")
	not clock.on_day("2026-03-01T12:00:00Z", [], "UTC")
}
