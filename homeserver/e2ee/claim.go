package e2ee

import (
	"context"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// Claimed is the answer to a claim: keys by user, device, and algorithm with ID.
type Claimed struct {
	OneTimeKeys map[matrix.UserID]map[matrix.DeviceID]map[string]jsontext.Value `json:"one_time_keys"`
	Failures    ServerFailures                                                  `json:"failures"`
}

// ClaimKeys takes one key of the named algorithm from each named device: its oldest one-time key, or else its fallback key. Nothing
// is taken from users whom policy keeps from the caller, and they are as absent from the answer as devices without keys.
//
// spec: client-server-api#post_matrixclientv3keysclaim
func (s *Service) ClaimKeys(ctx context.Context, by Caller, want map[matrix.UserID]map[matrix.DeviceID]string) (*Claimed, error) {
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
	v, err := s.decided(ctx, func() (*verdict, error) { return s.judge(ctx, by, policy.KeysClaim, nil, users) },
		func(tx *storage.Tx, v *verdict) (err error) {
			taken, err = claim(tx, v.allowed, want)
			return err
		})
	if err != nil {
		return nil, err
	}
	out := &Claimed{OneTimeKeys: byDevice(taken), Failures: v.failures()}
	s.claimRemote(ctx, by, v.far, want, out)
	return out, nil
}

// byDevice is how keys that were taken stand in an answer.
func byDevice(taken []storage.OneTimeKey) map[matrix.UserID]map[matrix.DeviceID]map[string]jsontext.Value {
	out := map[matrix.UserID]map[matrix.DeviceID]map[string]jsontext.Value{}
	for _, k := range taken {
		if out[k.UserID] == nil {
			out[k.UserID] = map[matrix.DeviceID]map[string]jsontext.Value{}
		}
		out[k.UserID][k.DeviceID] = map[string]jsontext.Value{k.Algorithm + ":" + k.KeyID: k.Key}
	}
	return out
}

func claim(tx *storage.Tx, allowed []matrix.UserID, want map[matrix.UserID]map[matrix.DeviceID]string) ([]storage.OneTimeKey, error) {
	var list []storage.Claim
	for _, u := range allowed {
		for _, d := range sortedKeys(want[u]) {
			list = append(list, storage.Claim{UserID: u, DeviceID: d, Algorithm: want[u][d]})
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	taken, err := tx.ClaimOneTimeKeys(list)
	if err != nil {
		return nil, err
	}
	if err := tx.PutClaimedKeys(taken, hashKey); err != nil {
		return nil, err
	}
	served := make(map[storage.Claim]bool, len(taken))
	var changed []matrix.UserID
	for _, k := range taken {
		served[storage.Claim{UserID: k.UserID, DeviceID: k.DeviceID, Algorithm: k.Algorithm}] = true
		changed = append(changed, k.UserID)
	}
	list = slices.DeleteFunc(list, func(c storage.Claim) bool { return served[c] })
	fallback, fresh, err := tx.UseFallbackKeys(list)
	if err != nil {
		return nil, err
	}
	changed = append(changed, fresh...)
	slices.Sort(changed)
	return append(taken, fallback...), tx.AnnounceOneTimeKeys(slices.Compact(changed))
}
