package adminapi

// RouteInfo is a line of the table of routes, for tests from outside.
type RouteInfo struct {
	Method, Path, Point, Action, None string
	Public, Operator                  bool
}

// Routes is the table.
func Routes() []RouteInfo {
	var out []RouteInfo
	for _, r := range (&API{}).routes() {
		out = append(out, RouteInfo{r.method, r.path, string(r.point), r.action, r.none, r.public, r.operator})
	}
	return out
}
