package clientapi

import (
	"net/http"

	"hansa/matrix"
	"hansa/policy"
)

func (a *API) userDirectoryRoutes() []route {
	return []route{
		{method: "POST", path: "/_matrix/client/v3/user_directory/search", access: user, point: policy.DirectorySearch, reads: true, fn: a.searchUsers},
	}
}

// spec: client-server-api#post_matrixclientv3user_directorysearch
func (a *API) searchUsers(w http.ResponseWriter, r *request) error {
	var body struct {
		Term  *string `json:"search_term"`
		Limit int     `json:"limit"`
	}
	if err := r.decode(&body); err != nil {
		return err
	}
	if body.Term == nil {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "The member search_term is missing.")
	}
	people, err := a.Directory.Search(r.Context(), r.finder(), *body.Term, body.Limit)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, people)
}
