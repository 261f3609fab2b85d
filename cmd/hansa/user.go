package main

import (
	"bufio"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"hansa/homeserver/account"
	"hansa/homeserver/adminapi"
)

func newUser() *cobra.Command {
	return family(&cobra.Command{Use: "user", Short: "Accounts: add, list, show, change, lock, close, wipe"},
		newUserAdd(), newUserList(), newUserShow(), newUserSet(), newUserPasswd(),
		userAct("lock", "Lock an account: its sessions stop at once", "user.lock"),
		userAct("unlock", "Open a locked account again", "user.unlock"),
		userAct("suspend", "Suspend an account: it may read and no more", "user.suspend"),
		userAct("unsuspend", "End a suspension", "user.unsuspend"),
		newUserDeactivate(),
		userAct("wipe", "Close an account for good and erase what is kept of it", "user.wipe"))
}

// userFacts are the flags about what policies know of an account.
type userFacts struct {
	admin, listed        bool
	kind                 string
	pools, groups, roles []string
	attributes           map[string]string
}

func (u *userFacts) flags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&u.admin, "admin", false, "the account administers its tenant")
	f.BoolVar(&u.listed, "listed", false, "the account is on the whitelist whatever the files say")
	f.StringVar(&u.kind, "kind", "user", "user or bot")
	f.StringArrayVar(&u.pools, "pool", nil, "a pool that the account is in; may be repeated")
	f.StringArrayVar(&u.groups, "group", nil, "a group that the account is in; may be repeated")
	f.StringArrayVar(&u.roles, "role", nil, "a role of the account, such as auditor; may be repeated")
	f.StringToStringVar(&u.attributes, "attribute", nil, "a further fact, as name=value; may be repeated")
}

func userPath(id, rest string) string { return "/users/" + url.PathEscape(id) + rest }

func checkUserID(id string) error {
	if !strings.HasPrefix(id, "@") || !strings.Contains(id, ":") {
		return wrongUsage("%q is not a user ID; write it as @name:tenant", id)
	}
	return nil
}

// newPassword takes a password from a line of the input, or invents one.
func newPassword(c *cobra.Command, fromInput bool) (password string, invented bool, err error) {
	if !fromInput {
		password, err = inventPassword()
		return password, true, err
	}
	line, err := bufio.NewReader(io.LimitReader(c.InOrStdin(), 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", false, err
	}
	password = strings.TrimRight(line, "\r\n")
	if password == "" {
		return "", false, wrongUsage("--password-stdin wants the password as one line on the standard input")
	}
	return password, false, nil
}

// inventPassword makes a password of 100 bits that can be read out.
func inventPassword() (string, error) {
	b := make([]byte, 13)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	s := strings.ToLower(base32.StdEncoding.EncodeToString(b))[:20]
	return s[:5] + "-" + s[5:10] + "-" + s[10:15] + "-" + s[15:], nil
}

func newUserAdd() *cobra.Command {
	var cl client
	var p printer
	var u userFacts
	var stdin, without bool
	var name string
	c := verb(&cobra.Command{Use: "add @name:tenant", Short: "Make an account; prints a new password unless one is given",
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkUserID(args[0]); err != nil {
				return err
			}
			body := adminapi.NewUser{UserID: args[0], DisplayName: name, Kind: u.kind, Admin: u.admin, Listed: u.listed, Pools: u.pools,
				Groups: u.groups, Roles: u.roles, Attributes: u.attributes}
			var invented bool
			if !without {
				var err error
				if body.Password, invented, err = newPassword(c, stdin); err != nil {
					return err
				}
			}
			var acc account.Account
			if err := cl.call(c.Context(), "POST", "/users", nil, body, &acc); err != nil {
				return err
			}
			shown := struct {
				account.Account
				Password string `json:"password,omitzero"`
			}{Account: acc}
			if invented {
				shown.Password = body.Password
			}
			return p.show(c, shown, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "%s has an account.\n", acc.UserID)
				if invented {
					_, _ = fmt.Fprintf(w, "Password: %s\n", body.Password)
				}
			})
		}}, 1, 1, "admin.action user.add")
	cl.flags(c)
	p.flag(c)
	u.flags(c)
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from the standard input")
	c.Flags().BoolVar(&without, "no-password", false, "nobody can log in with a password")
	c.Flags().StringVar(&name, "display-name", "", "the name that others see")
	c.MarkFlagsMutuallyExclusive("password-stdin", "no-password")
	return c
}

func newUserList() *cobra.Command {
	var cl client
	var p printer
	var tenant string
	c := verb(&cobra.Command{Use: "list", Short: "List accounts", RunE: func(c *cobra.Command, _ []string) error {
		all := adminapi.UserList{Users: []*account.Account{}}
		query := url.Values{"limit": {"1000"}}
		if tenant != "" {
			query.Set("tenant", tenant)
		}
		for {
			var page adminapi.UserList
			if err := cl.call(c.Context(), "GET", "/users", query, nil, &page); err != nil {
				return err
			}
			all.Users = append(all.Users, page.Users...)
			if page.Next == "" {
				break
			}
			query.Set("after", page.Next)
		}
		return p.show(c, all, func(w io.Writer) {
			var rows [][]string
			for _, u := range all.Users {
				rows = append(rows, userRow(u))
			}
			table(w, []string{"USER", "STATE", "ADMIN", "POOLS", "GROUPS", "ROLES"}, rows)
		})
	}}, 0, 0, "admin.action user.list")
	cl.flags(c)
	p.flag(c)
	c.Flags().StringVar(&tenant, "tenant", "", "of this tenant only")
	return c
}

func userRow(u *account.Account) []string {
	return []string{string(u.UserID), userState(u), yes(u.Admin), strings.Join(u.Pools, ", "), strings.Join(u.Groups, ", "), strings.Join(u.Roles, ", ")}
}

func userState(u *account.Account) string {
	switch {
	case u.Deactivated:
		return "closed"
	case u.Locked:
		return "locked"
	case u.Suspended:
		return "suspended"
	}
	return "active"
}

func newUserShow() *cobra.Command {
	var cl client
	var p printer
	c := verb(&cobra.Command{Use: "show @name:tenant", Short: "Show an account", RunE: func(c *cobra.Command, args []string) error {
		if err := checkUserID(args[0]); err != nil {
			return err
		}
		var u account.Account
		if err := cl.call(c.Context(), "GET", userPath(args[0], ""), nil, nil, &u); err != nil {
			return err
		}
		return p.show(c, u, func(w io.Writer) {
			table(w, []string{"USER", "STATE", "ADMIN", "POOLS", "GROUPS", "ROLES"}, [][]string{userRow(&u)})
		})
	}}, 1, 1, "admin.action user.show")
	cl.flags(c)
	p.flag(c)
	return c
}

func newUserSet() *cobra.Command {
	var cl client
	var u userFacts
	c := verb(&cobra.Command{Use: "set @name:tenant", Short: "Change what policies know of an account; lists are replaced, --pool '' empties one",
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkUserID(args[0]); err != nil {
				return err
			}
			var body adminapi.UserFacts
			changed := false
			has := func(name string) bool {
				changed = changed || c.Flags().Changed(name)
				return c.Flags().Changed(name)
			}
			list := func(name string, from []string, to **[]string) {
				if has(name) {
					if len(from) == 1 && from[0] == "" {
						from = []string{}
					}
					*to = &from
				}
			}
			list("pool", u.pools, &body.Pools)
			list("group", u.groups, &body.Groups)
			list("role", u.roles, &body.Roles)
			if has("admin") {
				body.Admin = &u.admin
			}
			if has("listed") {
				body.Listed = &u.listed
			}
			if has("kind") {
				body.Kind = &u.kind
			}
			if has("attribute") {
				body.Attributes = &u.attributes
			}
			if !changed {
				return wrongUsage("say what to change: --pool, --group, --role, --attribute, --admin, --listed or --kind")
			}
			return cl.call(c.Context(), "PUT", userPath(args[0], "/facts"), nil, body, nil)
		}}, 1, 1, "admin.action user.facts")
	cl.flags(c)
	u.flags(c)
	return c
}

func newUserPasswd() *cobra.Command {
	var cl client
	var p printer
	var stdin bool
	c := verb(&cobra.Command{Use: "passwd @name:tenant", Short: "Give an account another password and end its sessions",
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkUserID(args[0]); err != nil {
				return err
			}
			password, invented, err := newPassword(c, stdin)
			if err != nil {
				return err
			}
			if err := cl.call(c.Context(), "POST", userPath(args[0], "/password"), nil, adminapi.NewPassword{Password: password}, nil); err != nil {
				return err
			}
			shown := map[string]string{"user_id": args[0]}
			if invented {
				shown["password"] = password
			}
			return p.show(c, shown, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "%s has a new password.\n", args[0])
				if invented {
					_, _ = fmt.Fprintf(w, "Password: %s\n", password)
				}
			})
		}}, 1, 1, "admin.action user.passwd")
	cl.flags(c)
	p.flag(c)
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from the standard input")
	return c
}

func newUserDeactivate() *cobra.Command {
	var cl client
	var erase bool
	c := verb(&cobra.Command{Use: "deactivate @name:tenant", Short: "Close an account for good: it leaves its rooms and is not given out again", RunE: func(c *cobra.Command, args []string) error {
		if err := checkUserID(args[0]); err != nil {
			return err
		}
		action := "/deactivate"
		if erase {
			action = "/wipe"
		}
		return cl.call(c.Context(), "POST", userPath(args[0], action), nil, nil, nil)
	}}, 1, 1, "admin.action user.deactivate")
	c.Flags().BoolVar(&erase, "erase", false, "erase what is kept of it as well, the same as user wipe")
	cl.flags(c)
	return c
}

// userAct is a verb that needs nothing but the account.
func userAct(name, short, action string) *cobra.Command {
	var cl client
	c := verb(&cobra.Command{Use: name + " @name:tenant", Short: short, RunE: func(c *cobra.Command, args []string) error {
		if err := checkUserID(args[0]); err != nil {
			return err
		}
		return cl.call(c.Context(), "POST", userPath(args[0], "/"+name), nil, nil, nil)
	}}, 1, 1, "admin.action "+action)
	cl.flags(c)
	return c
}
