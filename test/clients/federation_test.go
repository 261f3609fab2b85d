package clients_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"hansa/test/hstest"
)

// TestServers has people of three deployments meet, each its own process with its own database, which reach each other over TLS with
// certificates of one authority, under agreements that both sides made.
func TestServers(t *testing.T) {
	checkTools(t)
	binary, ca := buildServer(t), hstest.NewAuthority(t)
	names := []string{"one.localhost", "two.localhost", "three.localhost"}
	var env []string
	var addresses []string
	for i, name := range names {
		addresses = append(addresses, net.JoinHostPort(hstest.FreeLoopback(t), hstest.FederationPort))
		at := "HANSA_FEDERATION_SERVERS_" + strconv.Itoa(i) + "_"
		env = append(env, at+"NAME="+name, at+"ADDRESS="+addresses[i])
	}
	env = append(env, "HANSA_FEDERATION_TRUSTED_CA_FILE="+ca.CAFile, "HANSA_FEDERATION_ALLOW_PRIVATE_ADDRESSES=true")
	var servers []*server
	for i, name := range names {
		database := ""
		if i == 1 {
			database = postgresDatabase(t)
		}
		dir := t.TempDir()
		client, admin := freeAddress(t), freeAddress(t)
		srv := &server{binary: binary, dir: dir, config: filepath.Join(dir, "hansa.yaml"), url: "http://" + client, log: filepath.Join(dir, "server.log")}
		args := []string{"init", "--dir", dir, "--tenant", name}
		if database != "" {
			args = append(args, "--database", database)
		}
		srv.command(t, "", args...)
		text, err := os.ReadFile(srv.config)
		if err != nil {
			t.Fatal(err)
		}
		text = regexp.MustCompile(`(?m)public_url:.*$`).ReplaceAll(text, []byte("public_url: "+srv.url))
		if err := os.WriteFile(srv.config, text, 0o600); err != nil {
			t.Fatal(err)
		}
		cert, key := ca.Certificate(dir, name)
		srv.start(t, append([]string{"HANSA_LISTEN_CLIENT=" + client, "HANSA_LISTEN_ADMIN=" + admin, "HANSA_LISTEN_FEDERATION=" + addresses[i],
			"HANSA_TLS_CERTIFICATE=" + cert, "HANSA_TLS_KEY=" + key}, env...), "serve", "-c", srv.config)
		srv.waitReady(t, "http://"+admin+"/readyz")
		for _, partner := range names {
			if partner != name {
				srv.command(t, "", "partner", "propose", name, partner, "-c", srv.config)
				srv.command(t, "", "partner", "approve", name, partner, "-c", srv.config)
			}
		}
		servers = append(servers, srv)
	}
	for _, pair := range [][2]int{{0, 1}, {1, 2}} {
		for _, s := range scripts()[:2] {
			s.name += "-" + strconv.Itoa(pair[0]) + strconv.Itoa(pair[1])
			t.Run(s.name, func(t *testing.T) {
				a, b := servers[pair[0]], servers[pair[1]]
				people := []string{"@alice-" + s.name + ":" + names[pair[0]], "@bob-" + s.name + ":" + names[pair[1]]}
				a.addUser(t, people[0])
				b.addUser(t, people[1])
				runScript(t, s, filepath.Join("output", "servers"), password, people, "HANSA_URL="+a.url, "HANSA_BOB_SERVER="+b.url)
			})
		}
	}
	for _, srv := range servers {
		srv.stop(t)
		srv.checkLog(t)
	}
}
