package federation_test

import (
	"fmt"
	"net/http"
	"testing"

	"hansa/test/hstest"
)

// Whatever strangers and users choose, names of servers, programs, paths, methods, rooms, types of events, makes no new series of metrics.
func TestO502_MetricsAreBounded(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, f *hstest.Federation) {
		one := f.Servers[0]
		anna, g := party(t, f, "11")
		client := f.Client()
		series := func() (n int) {
			t.Helper()
			families, err := one.Metrics.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, family := range families {
				n += len(family.GetMetric())
			}
			return n
		}
		turn := func(i int) {
			for _, path := range []string{fmt.Sprintf("/_matrix/client/v3/x%d", i), fmt.Sprintf("/x%d", i), fmt.Sprintf("/_matrix/client/v3/rooms/!r%d:x%d.example/state", i, i)} {
				req, err := http.NewRequest([]string{"GET", "PUT", fmt.Sprint("M", i)}[i%3], one.URL+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("User-Agent", fmt.Sprint("program ", i))
				req.Header.Set("Authorization", "Bearer "+anna.Token)
				req.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i))
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close() // only that it was asked matters
			}
			room := anna.CreateRoom(object{"preset": "public_chat"})
			anna.Must("PUT", fmt.Sprintf("/rooms/%s/send/org.example.t%d/x", hstest.Esc(room), i), object{"body": "x"})
			anna.Try("GET", fmt.Sprintf("/profile/@u:x%d.example", i), nil)
			anna.Try("POST", fmt.Sprintf("/join/!r%d:x%d.example?via=x%d.example", i, i, i), object{})
			g.o.Raw("GET", g.to, "/_matrix/federation/v1/event/$x", nil, fmt.Sprintf(`X-Matrix origin="x%d.example",destination="one.example",key="ed25519:k%d",sig="AAAA"`, i, i))
			g.transaction(fmt.Sprint("o502-", i), raw(g.message("x")), edu(fmt.Sprint("org.example.e", i), object{}))
		}
		for i := range 6 {
			turn(i)
		}
		before := series()
		for i := range 40 {
			turn(10 + i)
		}
		if after := series(); after > before+10 { // what happens for the first time
			t.Errorf("%d series, and %d after strangers have made up names", before, after)
		}
	})
}
