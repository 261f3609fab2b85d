package fedserver

import (
	"context"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/policy"
)

// Directory answers about aliases and published rooms. It is declared here so that the routes can be tested by themselves.
type Directory interface {
	ServeAlias(ctx context.Context, as, origin matrix.ServerName, alias matrix.RoomAlias) (*federation.AliasAnswer, error)
	ServePublicRooms(ctx context.Context, as, origin matrix.ServerName, q federation.PublicRoomsRequest) (*federation.PublicRoomsAnswer, error)
	ServeHierarchy(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, suggestedOnly bool) (*federation.Hierarchy, error)
}

// Profiles answers about the profiles of our users; an empty field stands for all.
type Profiles interface {
	ServeProfile(ctx context.Context, as, origin matrix.ServerName, user matrix.UserID, field string) (map[string]jsontext.Value, error)
}

// maxPublicRooms is how many published rooms one page has at most.
const maxPublicRooms = 500

func (a *API) queryRoutes() []route {
	const v1 = "/_matrix/federation/v1/"
	var out []route
	if a.Directory != nil {
		out = append(out,
			route{method: "GET", path: v1 + "query/directory", point: policy.RoomAlias, fn: a.queryDirectory},
			route{method: "GET", path: v1 + "publicRooms", point: policy.DirectoryRooms, fn: a.publicRooms},
			route{method: "POST", path: v1 + "publicRooms", point: policy.DirectoryRooms, fn: a.searchPublicRooms},
			route{method: "GET", path: v1 + "hierarchy/{roomId}", point: policy.DirectoryRooms, fn: a.hierarchy})
	}
	if a.Profiles != nil {
		out = append(out, route{method: "GET", path: v1 + "query/profile", point: policy.ProfileRead, fn: a.queryProfile})
	}
	return out
}

// queryDirectory resolves an alias of the tenant; those of others are not looked up for anybody.
//
// spec: server-server-api#get_matrixfederationv1querydirectory
// spec: server-server-api#querying-for-information
func (a *API) queryDirectory(w http.ResponseWriter, q *request) error {
	alias, err := matrix.ParseRoomAlias(q.values().Get("room_alias"))
	if err != nil {
		return matrix.InvalidParam("room_alias must be a room alias.")
	}
	if alias.Server() != q.as {
		return matrix.NotFound("There is no such alias here.")
	}
	return answer(w)(a.Directory.ServeAlias(q.Context(), q.as, q.origin, alias))
}

// queryProfile tells of a user of the tenant; users of others are not looked up for anybody.
//
// spec: server-server-api#get_matrixfederationv1queryprofile
func (a *API) queryProfile(w http.ResponseWriter, q *request) error {
	user, err := matrix.ParseUserID(q.values().Get("user_id"))
	if err != nil {
		return matrix.InvalidParam("user_id must be a user ID.")
	}
	if user.Server() != q.as {
		return matrix.NotFound("There is no such user here.")
	}
	return answer(w)(a.Profiles.ServeProfile(q.Context(), q.as, q.origin, user, q.values().Get("field")))
}

// spec: server-server-api#get_matrixfederationv1publicrooms
// spec: server-server-api#published-room-directory
func (a *API) publicRooms(w http.ResponseWriter, q *request) error {
	limit, err := q.number("limit", 0)
	if err != nil {
		return err
	}
	return a.listRooms(w, q, federation.PublicRoomsRequest{Limit: int(min(limit, maxPublicRooms)), Since: q.values().Get("since"),
		IncludeAllNetworks: q.values().Get("include_all_networks") == "true", ThirdPartyInstanceID: q.values().Get("third_party_instance_id")})
}

// spec: server-server-api#post_matrixfederationv1publicrooms
func (a *API) searchPublicRooms(w http.ResponseWriter, q *request) error {
	var body struct {
		Limit      int64                         `json:"limit"`
		Since      string                        `json:"since"`
		Filter     *federation.PublicRoomsFilter `json:"filter"`
		All        bool                          `json:"include_all_networks"`
		ThirdParty string                        `json:"third_party_instance_id"`
	}
	if err := q.decode(&body); err != nil {
		return err
	}
	return a.listRooms(w, q, federation.PublicRoomsRequest{Limit: int(min(max(body.Limit, 0), maxPublicRooms)), Since: body.Since, Filter: body.Filter,
		IncludeAllNetworks: body.All, ThirdPartyInstanceID: body.ThirdParty})
}

func (a *API) listRooms(w http.ResponseWriter, q *request, want federation.PublicRoomsRequest) error {
	if want.Limit == 0 {
		want.Limit = maxPublicRooms
	}
	page, err := a.Directory.ServePublicRooms(q.Context(), q.as, q.origin, want)
	if err == nil && page.Chunk == nil {
		page.Chunk = []jsontext.Value{}
	}
	return answer(w)(page, err)
}

// spec: server-server-api#get_matrixfederationv1hierarchyroomid
func (a *API) hierarchy(w http.ResponseWriter, q *request) error {
	id, err := q.roomID()
	if err != nil {
		return err
	}
	suggested := false
	if text := q.values().Get("suggested_only"); text != "" {
		if suggested, err = strconv.ParseBool(text); err != nil {
			return matrix.InvalidParam("suggested_only must be true or false.")
		}
	}
	return answer(w)(a.Directory.ServeHierarchy(q.Context(), q.as, q.origin, id, suggested))
}
