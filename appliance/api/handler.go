package api

import (
	"context"
	"net/http"
	"net/http/pprof"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Service is what a node can be asked to do. All methods may be called at the
// same time; what they change is durable when they return nil. Errors are
// *Error where the request was refused.
type Service interface {
	Status(ctx context.Context) (Status, error)

	Disks(ctx context.Context) ([]Disk, error)
	Disk(ctx context.Context, name string) (Disk, error)
	CreateDisk(ctx context.Context, d NewDisk) (Disk, error)
	ChangeDisk(ctx context.Context, name string, c DiskChange) (Disk, error)
	// DeleteDisk refuses a disk that sessions use, unless force is set.
	DeleteDisk(ctx context.Context, name string, force bool) error

	Targets(ctx context.Context) ([]Target, error)
	Target(ctx context.Context, name string) (Target, error)
	CreateTarget(ctx context.Context, name string) (Target, error)
	DeleteTarget(ctx context.Context, name string, force bool) error
	// MapLUN maps a disk; without lun it takes the lowest number never used.
	MapLUN(ctx context.Context, target string, lun *uint16, disk string) (Target, error)
	UnmapLUN(ctx context.Context, target string, lun uint16, force bool) error
	SetACL(ctx context.Context, target string, initiators []string) (Target, error)
	SetCHAP(ctx context.Context, target string, account CHAPAccount) (Target, error)
	DiscoveryCHAP(ctx context.Context) (CHAP, error)
	SetDiscoveryCHAP(ctx context.Context, account CHAPAccount) error

	Sessions(ctx context.Context) ([]Session, error)
	KillSession(ctx context.Context, id string) error

	Nodes(ctx context.Context) ([]Node, error)
	// RemoveNode takes a node out for good. It refuses to take the last copy of
	// anything, or the last vote.
	RemoveNode(ctx context.Context, name string) error
	// ReportEnd says that the process of a node has ended, that of this start. Only
	// who has seen it end may say so: a supervisor.
	ReportEnd(ctx context.Context, name string, incarnation uint64) error
	CreateToken(ctx context.Context, t NewToken) (Token, error)
	Links(ctx context.Context) ([]Link, error)
	ForceLink(ctx context.Context, id string, f ForceLink) error
	// Events are the last ones whose number is greater than after, oldest first.
	Events(ctx context.Context, after uint64) ([]Event, error)
	// Throttle bounds how fast the node copies what it has missed, in bytes per
	// second, until its next start.
	Throttle(ctx context.Context, rate int64) error
	// Cut has the node hear and say nothing to other nodes, or ends that: to see
	// what a cut network does.
	Cut(ctx context.Context, on bool) error
}

const maxBody = 1 << 20 // bytes of one request; an ACL of 1024 names fits

var replaceErrors = sync.OnceFunc(func() { huma.NewError = newHumaError })

// Handler serves s, and under /metrics what metrics serves.
func Handler(s Service, version string, metrics http.Handler) http.Handler {
	replaceErrors()
	mux := http.NewServeMux()
	cfg := huma.DefaultConfig("petal", version)
	cfg.DocsPath = ""     // huma's page loads scripts from the internet
	cfg.SchemasPath = ""  // everything is in /openapi.json
	cfg.CreateHooks = nil // no $schema links in the answers
	register(humago.New(mux, cfg), s)
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return http.MaxBytesHandler(withQuorum(s, mux), maxBody)
}

// quorumHeader says "no" in answers of a node that has heard from no majority
// lately: what they tell of the cluster may be old.
const quorumHeader = "Petal-Quorum"

func withQuorum(s Service, next http.Handler) http.Handler {
	q, ok := s.(interface{ Quorum() bool })
	if !ok {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !q.Quorum() {
			w.Header().Set(quorumHeader, "no")
		}
		next.ServeHTTP(w, r)
	})
}

// out is an answer with a body.
type out[T any] struct{ Body T }

// Requests: what comes from the path and the query, and the body.
type (
	none   struct{}
	byName struct {
		Name string `path:"name"`
	}
	byNameForce struct {
		Name  string `path:"name"`
		Force bool   `query:"force"`
	}
	byLUN struct {
		Name  string `path:"name"`
		LUN   uint16 `path:"lun" maximum:"255"`
		Force bool   `query:"force"`
	}
	withBody[T any] struct {
		Name string `path:"name"`
		Body T
	}
	onlyBody[T any] struct{ Body T }
	mapBody         struct {
		Disk string  `json:"disk"`
		LUN  *uint16 `json:"lun,omitempty" maximum:"255"`
	}
	nameBody struct {
		Name string `json:"name"`
	}
	byAfter struct {
		After uint64 `query:"after"`
	}
	endBody struct {
		Incarnation uint64 `json:"incarnation" minimum:"1"`
	}
	cutBody struct {
		On bool `json:"on"`
	}
	throttleBody struct {
		Rate int64 `json:"rate" minimum:"1048576" doc:"bytes per second"`
	}
	aclBody struct {
		Initiators []string `json:"initiators"`
	}
)

// route registers one operation; the summary is its name in /openapi.json.
func route[I, O any](api huma.API, method, path, summary string, f func(context.Context, *I) (O, error)) {
	op := huma.Operation{Method: method, Path: path, OperationID: operationID(summary), Summary: summary, MaxBodyBytes: maxBody}
	huma.Register(api, op, func(ctx context.Context, in *I) (*out[O], error) {
		body, err := f(ctx, in)
		if err != nil {
			return nil, asError(err)
		}
		return &out[O]{body}, nil
	})
}

// routeEmpty is route for operations that answer nothing.
func routeEmpty[I any](api huma.API, method, path, summary string, f func(context.Context, *I) error) {
	op := huma.Operation{Method: method, Path: path, OperationID: operationID(summary), Summary: summary, MaxBodyBytes: maxBody}
	huma.Register(api, op, func(ctx context.Context, in *I) (*struct{}, error) { return nil, asError(f(ctx, in)) })
}

func operationID(summary string) string {
	id := []byte(summary)
	for i, c := range id {
		if c == ' ' {
			id[i] = '-'
		}
	}
	return string(id)
}

func register(api huma.API, s Service) {
	route(api, "GET", "/v1/status", "status", func(ctx context.Context, _ *none) (Status, error) { return s.Status(ctx) })
	registerDisks(api, s)
	registerTargets(api, s)
	route(api, "GET", "/v1/discovery/chap", "show discovery chap", func(ctx context.Context, _ *none) (CHAP, error) { return s.DiscoveryCHAP(ctx) })
	routeEmpty(api, "PUT", "/v1/discovery/chap", "set discovery chap", func(ctx context.Context, in *onlyBody[CHAPAccount]) error {
		return s.SetDiscoveryCHAP(ctx, in.Body)
	})
	route(api, "GET", "/v1/sessions", "list sessions", func(ctx context.Context, _ *none) ([]Session, error) { return s.Sessions(ctx) })
	routeEmpty(api, "DELETE", "/v1/sessions/{name}", "kill session", func(ctx context.Context, in *byName) error { return s.KillSession(ctx, in.Name) })
	registerCluster(api, s)
}

func registerCluster(api huma.API, s Service) {
	route(api, "GET", "/v1/nodes", "list nodes", func(ctx context.Context, _ *none) ([]Node, error) { return s.Nodes(ctx) })
	routeEmpty(api, "DELETE", "/v1/nodes/{name}", "remove node", func(ctx context.Context, in *byName) error { return s.RemoveNode(ctx, in.Name) })
	routeEmpty(api, "POST", "/v1/nodes/{name}/ended", "report end of node", func(ctx context.Context, in *withBody[endBody]) error {
		return s.ReportEnd(ctx, in.Name, in.Body.Incarnation)
	})
	route(api, "POST", "/v1/tokens", "create token", func(ctx context.Context, in *onlyBody[NewToken]) (Token, error) {
		return s.CreateToken(ctx, in.Body)
	})
	route(api, "GET", "/v1/links", "list links", func(ctx context.Context, _ *none) ([]Link, error) { return s.Links(ctx) })
	routeEmpty(api, "POST", "/v1/links/{name}/force", "force link", func(ctx context.Context, in *withBody[ForceLink]) error {
		return s.ForceLink(ctx, in.Name, in.Body)
	})
	route(api, "GET", "/v1/events", "list events", func(ctx context.Context, in *byAfter) ([]Event, error) { return s.Events(ctx, in.After) })
	routeEmpty(api, "PUT", "/v1/throttle", "set resync rate", func(ctx context.Context, in *onlyBody[throttleBody]) error {
		return s.Throttle(ctx, in.Body.Rate)
	})
	routeEmpty(api, "PUT", "/v1/debug/cut", "cut node off", func(ctx context.Context, in *onlyBody[cutBody]) error { return s.Cut(ctx, in.Body.On) })
}

func registerDisks(api huma.API, s Service) {
	route(api, "GET", "/v1/disks", "list disks", func(ctx context.Context, _ *none) ([]Disk, error) { return s.Disks(ctx) })
	route(api, "POST", "/v1/disks", "create disk", func(ctx context.Context, in *onlyBody[NewDisk]) (Disk, error) { return s.CreateDisk(ctx, in.Body) })
	route(api, "GET", "/v1/disks/{name}", "show disk", func(ctx context.Context, in *byName) (Disk, error) { return s.Disk(ctx, in.Name) })
	route(api, "PATCH", "/v1/disks/{name}", "change disk", func(ctx context.Context, in *withBody[DiskChange]) (Disk, error) {
		return s.ChangeDisk(ctx, in.Name, in.Body)
	})
	routeEmpty(api, "DELETE", "/v1/disks/{name}", "delete disk", func(ctx context.Context, in *byNameForce) error {
		return s.DeleteDisk(ctx, in.Name, in.Force)
	})
}

func registerTargets(api huma.API, s Service) {
	route(api, "GET", "/v1/targets", "list targets", func(ctx context.Context, _ *none) ([]Target, error) { return s.Targets(ctx) })
	route(api, "POST", "/v1/targets", "create target", func(ctx context.Context, in *onlyBody[nameBody]) (Target, error) {
		return s.CreateTarget(ctx, in.Body.Name)
	})
	route(api, "GET", "/v1/targets/{name}", "show target", func(ctx context.Context, in *byName) (Target, error) { return s.Target(ctx, in.Name) })
	routeEmpty(api, "DELETE", "/v1/targets/{name}", "delete target", func(ctx context.Context, in *byNameForce) error {
		return s.DeleteTarget(ctx, in.Name, in.Force)
	})
	route(api, "POST", "/v1/targets/{name}/luns", "map lun", func(ctx context.Context, in *withBody[mapBody]) (Target, error) {
		return s.MapLUN(ctx, in.Name, in.Body.LUN, in.Body.Disk)
	})
	routeEmpty(api, "DELETE", "/v1/targets/{name}/luns/{lun}", "unmap lun", func(ctx context.Context, in *byLUN) error {
		return s.UnmapLUN(ctx, in.Name, in.LUN, in.Force)
	})
	route(api, "PUT", "/v1/targets/{name}/acl", "set acl", func(ctx context.Context, in *withBody[aclBody]) (Target, error) {
		return s.SetACL(ctx, in.Name, in.Body.Initiators)
	})
	route(api, "PUT", "/v1/targets/{name}/chap", "set chap", func(ctx context.Context, in *withBody[CHAPAccount]) (Target, error) {
		return s.SetCHAP(ctx, in.Name, in.Body)
	})
}
