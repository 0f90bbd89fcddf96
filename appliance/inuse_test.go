package appliance

import (
	"errors"
	"testing"

	"petal/appliance/api"
	"petal/cluster"
	"petal/cluster/meta"
	"petal/placement"
)

// TestInUse: sessions count wherever they are, and a node that does not say
// counts as one that has some.
func TestInUse(t *testing.T) {
	all := []*meta.Server{{ID: 1, Name: "n1"}, {ID: 2, Name: "n2"}, {ID: 5, Name: "n5"}}
	type at = map[placement.Server]map[string]int
	const advice = ", or use --force: who uses it gets I/O errors"
	for _, c := range []struct {
		name            string
		servers         []*meta.Server
		targets         []string
		at              at
		silent          []placement.Server
		problem, advice string
	}{
		{"nobody", all, []string{"a"}, at{1: {"b": 1}, 2: nil}, nil, "", ""},
		{"not exported", all, nil, at{1: {"b": 1}}, []placement.Server{2}, "", ""},
		{"this node alone", all[:1], []string{"a"}, at{1: {"a": 1}}, nil, `disk "d": in use by 1 session`, "log the initiators out first (`petal session list` shows them)"},
		{"elsewhere", all, []string{"a", "b"}, at{1: {"c": 9}, 2: {"a": 1, "b": 1, "c": 2}, 5: {"b": 1}}, nil,
			`disk "d": in use by 3 sessions, 2 at n2, 1 at n5`, "log the initiators out first (`petal session list` on n2 and n5 shows them)"},
		{"no answer", all, []string{"a"}, at{1: {}}, []placement.Server{2, 5},
			`disk "d": it may be in use at n2 and n5, of which there is no answer`, "see with `petal node list` what is wrong with n2 and n5"},
		{"both", all, []string{"a"}, at{1: {"a": 1}}, []placement.Server{5}, `disk "d": in use by 1 session, 1 at n1; and it may be in use at n5, of which there is no answer`,
			"log the initiators out first (`petal session list` on n1 shows them), and see with `petal node list` what is wrong with n5"},
		{"removed meanwhile", all[:1], []string{"a"}, at{1: {}}, []placement.Server{2}, "", ""},
	} {
		err := inUse(c.servers, `disk "d"`, c.targets, cluster.SessionCount{At: c.at, Silent: c.silent})
		if c.problem == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		var e *api.Error
		if !errors.As(err, &e) || e.Kind != api.InUse || e.Message != c.problem || e.Advice != c.advice+advice {
			t.Errorf("%s: %+v", c.name, e)
		}
	}
}
