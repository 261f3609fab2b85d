package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
)

// syncAnswer is what a /sync says, as far as it is looked at.
type syncAnswer struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join map[string]struct {
			Timeline struct {
				Events  []Event `json:"events"`
				Limited bool    `json:"limited"`
				Prev    string  `json:"prev_batch"`
			} `json:"timeline"`
			Ephemeral struct {
				Events []Event `json:"events"`
			} `json:"ephemeral"`
		} `json:"join"`
		Invite map[string]json.RawMessage `json:"invite"`
	} `json:"rooms"`
	AccountData struct {
		Events []Event `json:"events"`
	} `json:"account_data"`
	ToDevice struct {
		Events []Event `json:"events"`
	} `json:"to_device"`
	KeyCount map[string]int `json:"device_one_time_keys_count"`
}

// listen is a client that syncs, from a token of before the storm until nothing is new after it. An answer that did not arrive is asked for
// again with the same token. Half of the people take small timelines and close the gaps by /messages.
func (s *Storm) listen(ctx context.Context, i int, quiet <-chan struct{}) {
	h, p := s.ledger.heard[i], s.people[i]
	h.since = s.first[i]
	limit := 1000
	if i%2 == 1 {
		limit = 3
	}
	filter := url.QueryEscape(fmt.Sprintf(`{"room":{"timeline":{"limit":%d}}}`, limit))
	for last := false; ; {
		timeout := 400
		select {
		case <-quiet:
			timeout = 0
			if last {
				return
			}
		default:
		}
		a, _, err := s.settle(ctx, "sync", p, "GET", fmt.Sprintf("%s/sync?timeout=%d&since=%s&filter=%s", v3, timeout, h.since, filter), nil)
		if err != nil {
			return
		}
		var got syncAnswer
		if err := a.Into(&got); err != nil || a.Status != 200 {
			s.complain("sync of %s since %s: %v", p.ID, h.since, a)
			return
		}
		last = timeout == 0 && got.Next == h.since
		if err := s.hear(ctx, h, p, &got); err != nil {
			if ctx.Err() == nil {
				s.complain("sync of %s since %s: %v", p.ID, h.since, err)
			}
			return
		}
	}
}

// hear takes an answer in.
func (s *Storm) hear(ctx context.Context, h *heard, p *Person, got *syncAnswer) error {
	for room, news := range got.Rooms.Join {
		if !slices.Contains(s.rooms, room) {
			continue
		}
		events := news.Timeline.Events
		if news.Timeline.Limited {
			older, err := s.history(ctx, p, room, "b", news.Timeline.Prev, h.since)
			if err != nil {
				return err
			}
			slices.Reverse(older)
			events = append(older, events...)
			h.gaps++
		}
		for i := range events {
			if h.seen[events[i].ID] {
				return fmt.Errorf("%s is told again, %d of %d events (limited %v, prev_batch %s) up to %s: %+v", events[i].ID, i, len(events), news.Timeline.Limited,
					news.Timeline.Prev, got.Next, news.Timeline.Events)
			}
			h.seen[events[i].ID] = true
		}
		h.timelines[room] = append(h.timelines[room], events...)
	}
	for _, e := range got.AccountData.Events {
		var c struct{ N int }
		if json.Unmarshal(e.Content, &c) == nil {
			h.data[e.Type] = c.N
		}
	}
	for _, e := range got.ToDevice.Events {
		var c struct {
			N    int
			Lane string
		}
		if err := json.Unmarshal(e.Content, &c); err != nil {
			return err
		}
		h.messages = append(h.messages, heardMessage{e.Sender, e.Type, c.Lane, c.N})
	}
	h.keyCount = got.KeyCount["curve25519"]
	h.since = got.Next
	return nil
}

// history reads a room by /messages, from one token (empty: the end that dir goes away from) to another (empty: to the end).
func (s *Storm) history(ctx context.Context, p *Person, room, dir, from, to string) ([]Event, error) {
	var out []Event
	for {
		q := url.Values{"dir": {dir}, "limit": {"400"}}
		if from != "" {
			q.Set("from", from)
		}
		if to != "" {
			q.Set("to", to)
		}
		a, _, err := s.settle(ctx, "messages", p, "GET", roomPath(room, "/messages?"+q.Encode()), nil)
		if err != nil {
			return nil, err
		}
		var page struct {
			Chunk []Event `json:"chunk"`
			End   string  `json:"end"`
		}
		if err := a.Into(&page); err != nil || a.Status != 200 {
			return nil, fmt.Errorf("messages of %s from %q: %v", room, from, a)
		}
		out = append(out, page.Chunk...)
		if page.End == "" {
			return out, nil
		}
		from = page.End
	}
}
