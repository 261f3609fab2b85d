package e2ee

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// judgeServer asks policy what another server may learn of users of the tenant that it addresses. Others are left out without being
// asked about.
func (s *Service) judgeServer(ctx context.Context, as, origin matrix.ServerName, point policy.Point, users []matrix.UserID) (*verdict, error) {
	v := &verdict{refused: map[matrix.ServerName]struct{}{}}
	var own []matrix.UserID
	for _, u := range users {
		if u.Server() == as {
			own = append(own, u)
		}
	}
	if len(own) == 0 {
		return v, nil
	}
	var err error
	if v.parties, err = s.Parties.Parties(ctx, own); err != nil {
		return nil, err
	}
	for _, u := range own {
		if p := v.parties[u]; p == nil || !p.Local {
			delete(v.parties, u)
		}
	}
	in := policy.Input{Point: point, Tenant: policy.Tenant{Name: string(as)}, Subject: policy.ServerParty(string(origin), false),
		Server: &policy.Server{Name: string(origin)}, Request: &policy.Request{Via: "federation"}}
	return v, s.ask(ctx, v, in, own)
}

// ServeQuery answers another server about keys of users of the tenant that it addresses. Users of any other server, and those of whom
// it may not know, are as absent as those who do not exist.
//
// spec: server-server-api#post_matrixfederationv1userkeysquery
func (s *Service) ServeQuery(ctx context.Context, as, origin matrix.ServerName, want map[matrix.UserID][]matrix.DeviceID) (*federation.KeysAnswer, error) {
	users, err := userIDs(want)
	if err != nil {
		return nil, err
	}
	v, err := s.judgeServer(ctx, as, origin, policy.KeysQuery, users)
	if err != nil {
		return nil, err
	}
	var rows keyRows
	if err := s.DB.View(ctx, func(tx *storage.Tx) (err error) {
		rows, err = loadKeys(tx, v.allowed, "")
		return err
	}); err != nil {
		return nil, err
	}
	out := newKeys(nil)
	out.add(rows, want, "")
	return &federation.KeysAnswer{DeviceKeys: out.DeviceKeys, MasterKeys: out.MasterKeys, SelfSigningKeys: out.SelfSigningKeys}, nil
}

// ServeClaim gives another server one-time keys of users of the tenant that it addresses.
//
// spec: server-server-api#post_matrixfederationv1userkeysclaim
func (s *Service) ServeClaim(ctx context.Context, as, origin matrix.ServerName, want map[matrix.UserID]map[matrix.DeviceID]string) (*federation.ClaimAnswer, error) {
	users, err := userIDs(want)
	if err != nil {
		return nil, err
	}
	n := 0
	for _, devices := range want {
		if n += len(devices); n > maxClaims {
			return nil, tooLarge("A request may claim at most %d keys.", maxClaims)
		}
	}
	var taken []storage.OneTimeKey
	_, err = s.decided(ctx, func() (*verdict, error) { return s.judgeServer(ctx, as, origin, policy.KeysClaim, users) },
		func(tx *storage.Tx, v *verdict) (err error) {
			taken, err = claim(tx, v.allowed, want)
			return err
		})
	if err != nil {
		return nil, err
	}
	return &federation.ClaimAnswer{OneTimeKeys: byDevice(taken)}, nil
}

// ServeDevices gives another server the devices of one user of the tenant that it addresses, with the number of the newest update
// that they contain. The same answer says that there is no such user and that the server may not know.
//
// spec: server-server-api#get_matrixfederationv1userdevicesuserid
func (s *Service) ServeDevices(ctx context.Context, as, origin matrix.ServerName, user matrix.UserID) (*federation.Devices, error) {
	unknown := matrix.NotFound("There is no such user.")
	v, err := s.judgeServer(ctx, as, origin, policy.KeysQuery, []matrix.UserID{user})
	if err != nil {
		return nil, err
	}
	if len(v.allowed) == 0 {
		return nil, unknown
	}
	var rows keyRows
	var told storage.AnnouncedList
	if err := s.DB.View(ctx, func(tx *storage.Tx) (err error) {
		if told, err = tx.LoadAnnouncedList(user); err != nil {
			return err
		}
		rows, err = loadKeys(tx, v.allowed, "")
		return err
	}); err != nil {
		return nil, err
	}
	if len(rows.devices) == 0 {
		return nil, unknown
	}
	out := newKeys(nil)
	sigs := bySignedKey(rows.sigs)
	d := &federation.Devices{UserID: user, StreamID: told.StreamID, Devices: []federation.Device{}}
	for _, one := range rows.devices {
		if one.Keys != nil {
			keys := assemble(one.Keys, sigs[signedKey{user, string(one.DeviceID)}], "")
			d.Devices = append(d.Devices, federation.Device{DeviceID: one.DeviceID, Keys: jsontext.Value(keys), DisplayName: one.DisplayName})
		}
	}
	out.add(rows, map[matrix.UserID][]matrix.DeviceID{}, "")
	d.MasterKey, d.SelfSigningKey = out.MasterKeys[user], out.SelfSigningKeys[user]
	return d, nil
}
