package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"hansa/config"
	"hansa/homeserver/adminapi"
)

// client speaks to the admin API of a running server.
type client struct {
	file, server, tokenFile, approvalFile, reason string

	http  *http.Client
	base  string
	token string
}

// configFlag adds -c.
func configFlag(c *cobra.Command, file *string) {
	c.Flags().StringVarP(file, "config", "c", "hansa.yaml", "the configuration file")
}

// flags adds what every verb has that speaks to a server.
func (c *client) flags(cmd *cobra.Command) {
	configFlag(cmd, &c.file)
	f := cmd.Flags()
	f.StringVar(&c.server, "server", "", "the admin listener of a server, such as https://admin.acme.example; without it the socket of the configuration is used")
	f.StringVar(&c.tokenFile, "token-file", "", "a file with the access token of an administrator, for --server")
	f.StringVar(&c.approvalFile, "approval-token-file", "", "a file with the access token of a second person, for actions that need one")
	f.StringVar(&c.reason, "reason", "", "why this is done; the policy is told")
}

// open finds the server.
func (c *client) open() error {
	if c.server != "" {
		token, err := readTokenFile(c.tokenFile)
		if err != nil {
			return err
		}
		c.base, c.token = strings.TrimSuffix(c.server, "/"), token
		c.http = &http.Client{Timeout: time.Minute}
		return nil
	}
	cfg, err := config.Load(c.file, os.Environ())
	if err != nil {
		return err
	}
	c.dial(cfg.AdminSocket())
	return nil
}

// dial uses a unix socket.
func (c *client) dial(socket string) {
	c.base = "http://socket"
	c.http = &http.Client{Timeout: 10 * time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := adminapi.DialSocket(ctx, socket)
			if err != nil {
				return nil, &noServer{socket, err}
			}
			return conn, nil
		}}}
}

func readTokenFile(name string) (string, error) {
	if name == "" {
		return "", wrongUsage("--server needs --token-file")
	}
	b, err := os.ReadFile(name)
	return strings.TrimSpace(string(b)), err
}

// noServer says that nobody answers on the socket.
type noServer struct {
	socket string
	err    error
}

func (e *noServer) Error() string {
	return fmt.Sprintf("no server answers on %s; is `hansa serve` running with this configuration? (%v)", e.socket, e.err)
}

// refused is an error that the server answered.
type refused struct {
	Status   int
	Code     string `json:"errcode"`
	Message  string `json:"error"`
	Decision string `json:"org.hansa.decision_id"`
	Reasons  []struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"org.hansa.reasons"`
}

func (e *refused) Error() string {
	var b strings.Builder
	b.WriteString(plain(e.Message))
	for _, r := range e.Reasons {
		fmt.Fprintf(&b, "\n  %s: %s", plain(r.Code), plain(r.Message))
	}
	if e.Decision != "" {
		fmt.Fprintf(&b, "\n  decision %s", plain(e.Decision))
	}
	return b.String()
}

// call sends a request and decodes the answer into out, unless that is nil.
func (c *client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	if c.http == nil {
		if err := c.open(); err != nil {
			return err
		}
	}
	req, err := c.request(ctx, method, path, query, in)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	var none *noServer
	if errors.As(err, &none) {
		return none
	}
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or broken
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		e := &refused{Status: resp.StatusCode}
		if json.Unmarshal(body, e) != nil || e.Message == "" {
			e.Message = "the server answered " + resp.Status
		}
		return e
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("the answer of the server is not understood: %w", err)
	}
	return nil
}

func (c *client) request(ctx context.Context, method, path string, query url.Values, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	target := c.base + "/_hansa/admin/v1" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "hansa/"+version)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.reason != "" {
		req.Header.Set(adminapi.HeaderReason, c.reason)
	}
	if c.approvalFile != "" {
		token, err := readTokenFile(c.approvalFile)
		if err != nil {
			return nil, err
		}
		req.Header.Set(adminapi.HeaderApproval, token)
	}
	return req, nil
}
