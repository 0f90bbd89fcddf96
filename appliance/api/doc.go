// Package api is the administrator's side of a node: the types of requests and
// answers, the HTTP handler that serves them, and the client that the command
// line uses.
//
//	petal disk create ...          curl --unix-socket admin.sock http://petal/v1/disks
//	        |                                     |
//	     Client ---- HTTP over a unix socket, mode 0600 ---- Handler ---- Service (package appliance)
//
// Whoever can open the socket is the administrator: there is no other
// authentication. The handler also serves /openapi.json (the description of
// everything here), /metrics (Prometheus) and /debug/pprof/.
//
// It is not the place for decisions: those are behind Service. It knows neither
// the cluster nor the target.
package api
