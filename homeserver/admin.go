package homeserver

import (
	"context"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hansa/federation/agreement"
	"hansa/homeserver/adminapi"
)

// buildAdmin makes the services that only administrators use.
func (s *Server) buildAdmin(d Deps) {
	s.Agreements = agreement.New(agreement.Deps{DB: s.DB, Policy: s.Policy, IsLocal: s.isLocal, Changed: s.renewAgreements, Now: d.Now})
	var tenants []adminapi.Tenant
	for _, t := range s.Config.Tenants {
		key := s.signing[t.Name]
		tenants = append(tenants, adminapi.Tenant{Name: t.Name, PublicURL: t.PublicURL, Registration: string(t.Registration),
			KeyID: key.String(), VerifyKey: key.Public().String()})
	}
	s.Admin = adminapi.New(adminapi.Deps{DB: s.DB, Policy: s.Policy, Accounts: s.Accounts, Rooms: s.Rooms, Agreements: s.Agreements, Bridges: bridgeAdmin{s.Bridges},
		Tenants: tenants, Version: d.Version, Log: d.Log, Now: d.Now})
}

// renewAgreements makes the policy know the agreements of the database.
func (s *Server) renewAgreements(ctx context.Context) error {
	s.agreements.Lock() // what was read first must not be set last
	defer s.agreements.Unlock()
	list, err := s.readAgreements(ctx)
	if err != nil {
		return err
	}
	return s.Policy.SetAgreements(ctx, list)
}

// adminHandler serves health, metrics and the admin API for users with admin rights.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	admin := s.Admin.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/_hansa/") { // past the mux, which would redirect odd paths
			admin.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}
