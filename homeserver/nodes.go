package homeserver

import (
	"context"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa/storage"
)

const (
	// beat is how often a node says that it lives and looks for the others; livesFor is how long that is believed.
	beat     = 2 * time.Second
	livesFor = 7 * time.Second
	// agreeWithin is how long the nodes may differ in their policy before somebody is told: each sees a saved file by itself.
	agreeWithin = 5 * time.Second
	// settle is how long files must have been quiet before a node reads them because another one has.
	settle = 150 * time.Millisecond
)

// nodes makes the nodes of a deployment know of each other: which live, and which policy is active on each.
type nodes struct {
	s         *Server
	look      chan struct{} // another node may have started
	reload    chan struct{} // another node has made another policy active
	count     atomic.Int64
	revisions atomic.Int64

	differ time.Time // since when the policies differ; used by begin and then run alone, as is warned
	warned bool
}

func newNodes(s *Server) (*nodes, error) {
	n := &nodes{s: s, look: make(chan struct{}, 1), reload: make(chan struct{}, 1)}
	n.count.Store(1)
	n.revisions.Store(1)
	for _, c := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hansa_nodes_count", Help: "Nodes of this deployment that live, this one among them."},
			func() float64 { return float64(n.count.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hansa_nodes_policy_revisions_count",
			Help: "Revisions of policy that are active on the nodes. More than 1 for more than some seconds means that nodes read different bundles."},
			func() float64 { return float64(n.revisions.Load()) }),
	} {
		if err := s.Metrics.Register(c); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// begin looks for other nodes before the first request comes.
func (n *nodes) begin(ctx context.Context) {
	if n.s.DB.Name() == "sqlite" {
		return // one node
	}
	if err := n.beat(ctx); err != nil {
		n.s.log.WithError(err).Warn("the other nodes could not be looked for; trying again")
	}
}

// run says that this node lives, and reads its policy anew when another node has made one active (package room announces that).
func (n *nodes) run(ctx context.Context) error {
	if n.s.DB.Name() == "sqlite" {
		return nil // one node
	}
	defer n.leave(ctx)
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		changed := n.s.Policy.Changed()
		if err := n.beat(ctx); err != nil && ctx.Err() == nil {
			n.s.log.WithError(err).Warn("the other nodes could not be looked for; trying again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-changed:
		case <-n.look:
		case <-n.reload:
			if wait(ctx, settle); ctx.Err() == nil {
				_ = n.s.Policy.Reload(ctx) // logged, counted and kept for its status by Reload
			}
		}
	}
}

// several tells whether there may be other nodes. How many live right now is not asked: one that has no time to say so still writes.
func (n *nodes) several() bool { return n.s.DB.Name() != "sqlite" }

// current makes this node know what the others have written before it answers another server: a join that one node let in must not be
// unknown to the node that gets the first message.
func (s *Server) current(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.nodes.several() && strings.HasPrefix(r.URL.Path, "/_matrix/federation/") {
			s.Sync.Renew(r.Context(), s.Sync.Position())
		}
		next.ServeHTTP(w, r)
	})
}

// beat writes down that this node lives, and looks which others do.
func (n *nodes) beat(ctx context.Context) error {
	host, _ := os.Hostname() // only a label
	me := storage.Node{ID: n.s.Stream.Node(), Host: host, Revision: n.s.Policy.Revision()}
	for _, t := range n.s.Config.Tenants {
		me.Tenants = append(me.Tenants, t.Name)
	}
	var list []storage.Node
	err := n.s.DB.Update(ctx, func(tx *storage.Tx) error {
		if err := tx.TouchNode(me, livesFor); err != nil {
			return err
		}
		var err error
		list, err = tx.LoadLivingNodes()
		return err
	})
	if err == nil {
		n.compare(list)
	}
	return err
}

// compare warns when nodes go on with different policies.
func (n *nodes) compare(list []storage.Node) {
	by := map[string][]string{}
	for _, o := range list {
		by[o.Revision] = append(by[o.Revision], o.Host+"/"+o.ID)
	}
	n.count.Store(int64(len(list)))
	n.revisions.Store(int64(len(by)))
	now := time.Now()
	switch {
	case len(by) <= 1:
		if n.warned {
			n.s.log.Info("all nodes have the same policy again")
		}
		n.differ, n.warned = time.Time{}, false
	case n.differ.IsZero():
		n.differ = now
	case now.Sub(n.differ) > agreeWithin && !n.warned:
		n.warned = true
		var text []string
		for revision, who := range by {
			text = append(text, revision+": "+strings.Join(who, ", "))
		}
		n.s.log.WithField("revisions", strings.Join(text, "; ")).Error("nodes have different policies: make their bundles the same")
	}
}

// heard is called when the log says that a node has made a policy active, or has started.
func (n *nodes) heard(revision string) {
	c := n.look
	if revision != n.s.Policy.Revision() {
		c = n.reload
	}
	select {
	case c <- struct{}{}:
	default:
	}
}

// leave says that this node is no more.
func (n *nodes) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // the server stops, this is the last chance
	defer cancel()
	if err := n.s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.RemoveNode(n.s.Stream.Node()) }); err != nil {
		n.s.log.WithError(err).Warn("this node could not say that it stops; the others see it soon")
	}
}
