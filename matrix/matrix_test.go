package matrix

import "testing"

func TestFindRoomVersion(t *testing.T) {
	t.Parallel()
	for _, id := range RoomVersions() {
		if v, ok := FindRoomVersion(id); !ok || v.ID != id {
			t.Errorf("FindRoomVersion(%s) = %+v, %v", id, v, ok)
		}
	}
	for _, id := range []string{"", "0", "13", "99", "1.0", "org.example.1", "１"} {
		if v, ok := FindRoomVersion(id); ok {
			t.Errorf("FindRoomVersion(%q) = %+v", id, v)
		}
	}
	if _, ok := FindRoomVersion(DefaultRoomVersion); !ok {
		t.Error("the default room version is unknown")
	}
}

// TestRoomVersions_ChangeWhereTheSpecificationSays lists for every flag the versions in which it holds.
func TestRoomVersions_ChangeWhereTheSpecificationSays(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		flag        func(*RoomVersion) bool
		first, last int
	}{
		"EventIDHash":         {func(v *RoomVersion) bool { return v.EventIDHash }, 3, 12},
		"RoomIDHash":          {func(v *RoomVersion) bool { return v.RoomIDHash }, 12, 12},
		"RedactionInAuth":     {func(v *RoomVersion) bool { return v.RedactionInAuth }, 1, 2},
		"RedactsInContent":    {func(v *RoomVersion) bool { return v.RedactsInContent }, 11, 12},
		"EventIDSignature":    {func(v *RoomVersion) bool { return v.EventIDSignature }, 1, 2},
		"EnforceKeyValidity":  {func(v *RoomVersion) bool { return v.EnforceKeyValidity }, 5, 12},
		"StrictCanonicalJSON": {func(v *RoomVersion) bool { return v.StrictCanonicalJSON }, 6, 12},
		"AliasesAuth":         {func(v *RoomVersion) bool { return v.AliasesAuth }, 1, 5},
		"NotificationsAuth":   {func(v *RoomVersion) bool { return v.NotificationsAuth }, 6, 12},
		"StringPowerLevels":   {func(v *RoomVersion) bool { return v.StringPowerLevels }, 1, 9},
		"FloatPowerLevels":    {func(v *RoomVersion) bool { return v.FloatPowerLevels }, 1, 5},
		"IntegerPowerLevels":  {func(v *RoomVersion) bool { return v.IntegerPowerLevels }, 10, 12},
		"Knock":               {func(v *RoomVersion) bool { return v.Knock }, 7, 12},
		"Restricted":          {func(v *RoomVersion) bool { return v.Restricted }, 8, 12},
		"KnockRestricted":     {func(v *RoomVersion) bool { return v.KnockRestricted }, 10, 12},
		"CreatorField":        {func(v *RoomVersion) bool { return v.CreatorField }, 1, 10},
		"CreateInAuthEvents":  {func(v *RoomVersion) bool { return v.CreateInAuthEvents }, 1, 11},
		"PrivilegedCreators":  {func(v *RoomVersion) bool { return v.PrivilegedCreators }, 12, 12},
		"MaxDepth 2^53-1":     {func(v *RoomVersion) bool { return v.MaxDepth == 1<<53-1 }, 6, 12},
		"state resolution 1":  {func(v *RoomVersion) bool { return v.StateRes == StateResV1 }, 1, 1},
		"state resolution 2":  {func(v *RoomVersion) bool { return v.StateRes == StateResV2 }, 2, 11},
		"redaction 1":         {func(v *RoomVersion) bool { return v.Redaction == RedactionV1 }, 1, 5},
		"redaction 6":         {func(v *RoomVersion) bool { return v.Redaction == RedactionV6 }, 6, 7},
		"redaction 8":         {func(v *RoomVersion) bool { return v.Redaction == RedactionV8 }, 8, 8},
		"redaction 9":         {func(v *RoomVersion) bool { return v.Redaction == RedactionV9 }, 9, 10},
		"format 1":            {func(v *RoomVersion) bool { return v.EventFormat == EventFormatV1 }, 1, 2},
		"format 3":            {func(v *RoomVersion) bool { return v.EventFormat == EventFormatV3 }, 3, 3},
		"format 4":            {func(v *RoomVersion) bool { return v.EventFormat == EventFormatV4 }, 4, 5},
		"format 6":            {func(v *RoomVersion) bool { return v.EventFormat == EventFormatV6 }, 6, 10},
		"format 11":           {func(v *RoomVersion) bool { return v.EventFormat == EventFormatV11 }, 11, 11},
	} {
		for i, id := range RoomVersions() {
			v, _ := FindRoomVersion(id)
			if got, want := x.flag(v), x.first <= i+1 && i+1 <= x.last; got != want {
				t.Errorf("%s in version %s is %v", name, id, got)
			}
		}
	}
}

func TestError_With(t *testing.T) {
	t.Parallel()
	e := Forbidden("no, %s", "you")
	f := e.With("retry_after_ms", 5).With("x", "y")
	if e.Extra != nil || len(f.Extra) != 2 || f.Status != 403 || f.Error() != "403 M_FORBIDDEN: no, you" {
		t.Errorf("With = %+v, the first is now %+v", f, e)
	}
	for _, e := range []*Error{NotFound("x"), BadJSON("x"), InvalidParam("x")} {
		if e.Message != "x" || e.Code == "" || e.Status == 0 {
			t.Errorf("%+v", e)
		}
	}
}
