package api

import "time"

// Cluster is what a node knows of its cluster.
type Cluster struct {
	ID      string   `json:"id"`
	Name    string   `json:"name,omitempty"`
	Nodes   int      `json:"nodes"`
	Up      int      `json:"up" doc:"nodes that have not been missed"`
	Voters  []string `json:"voters" doc:"the nodes whose majority decides"`
	Leader  string   `json:"leader,omitempty" doc:"empty: none is known to this node"`
	Quorum  bool     `json:"quorum" doc:"this node has heard from a majority of the voters lately"`
	Lease   bool     `json:"lease" doc:"this node may serve disks"`
	CutOff  []string `json:"cut_off,omitempty" doc:"nodes in service that another node reaches and this one does not: its portals are closed"`
	Alone   bool     `json:"alone" doc:"no [cluster] listen: no other node can join"`
	Plain   bool     `json:"plain,omitempty" doc:"this node talks to the others without TLS (cluster.plain)"`
	Release uint32   `json:"release" doc:"the lowest release among the nodes: what came later is not in use yet"`
}

// Health says whether a disk can be used, and what stands between it and loss.
type Health struct {
	State  string     `json:"state" enum:"healthy,degraded,unavailable,unknown" doc:"degraded: all is served, from fewer copies than it should have; unavailable: a part is not served; unknown: the node that answers has no quorum, and the rest is what it knew last"`
	Served int        `json:"served_percent" doc:"of the disk"`
	Since  *time.Time `json:"since,omitempty"`
	Why    []string   `json:"why,omitempty"`
	Fix    []string   `json:"fix,omitempty" doc:"what mends it"`
	Risks  []Risk     `json:"risks,omitempty" doc:"what the failure of one more node would do"`
}

// Risk is what the failure of one more node would do to a disk.
type Risk struct {
	Node     string `json:"node"`
	Percent  int    `json:"percent" doc:"of the disk that would not be served"`
	Lost     bool   `json:"lost" doc:"it would be lost if the node never came back: there is no other whole copy"`
	Majority bool   `json:"majority,omitempty" doc:"no majority of the voters would be left, and without one nothing is served"`
}

// Unwell is a disk that is not healthy.
type Unwell struct {
	Disk   string `json:"disk"`
	Health Health `json:"health"`
}

// Node is a member of the cluster.
type Node struct {
	ID          uint32     `json:"id"`
	Name        string     `json:"name"`
	Kind        string     `json:"kind" enum:"data,witness"`
	Site        string     `json:"site,omitempty"`
	State       string     `json:"state" enum:"up,down,new,leaving" doc:"new: it has joined and was never started"`
	Since       *time.Time `json:"since,omitempty" doc:"down since"`
	Vote        string     `json:"vote" enum:"voter,learner,none"`
	Leader      bool       `json:"leader"`
	Self        bool       `json:"self" doc:"the node that answers"`
	Incarnation uint64     `json:"incarnation" doc:"starts so far"`
	Release     uint32     `json:"release"`
	Addresses   []string   `json:"addresses" doc:"for the other nodes"`
	Portals     []string   `json:"portals" doc:"for initiators"`
	Joined      time.Time  `json:"joined"`
}

// NewToken asks for a join token.
type NewToken struct {
	Seconds int64 `json:"seconds,omitempty" doc:"how long it is good for; default an hour"`
	Uses    int   `json:"uses,omitempty" doc:"how many nodes may join with it; default 1"`
}

// Token lets nodes join. It is a secret.
type Token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"`
}

// Link is a group of nodes that hold the same part of some disks.
type Link struct {
	ID      string     `json:"id"`
	Nodes   []string   `json:"nodes" doc:"that hold it; the first orders the writes when all is well"`
	InSync  []string   `json:"in_sync" doc:"that have every acknowledged write"`
	Filling []string   `json:"filling,omitempty" doc:"in sync, but still copying blocks that they missed"`
	Head    string     `json:"head" doc:"that orders the writes now"`
	Version uint64     `json:"version"`
	State   string     `json:"state" enum:"healthy,degraded,unavailable"`
	Since   *time.Time `json:"since,omitempty"`
	Disks   []string   `json:"disks"`
	Percent int        `json:"percent" doc:"of each of them that lies there"`
}

// ForceLink takes a copy that may lack acknowledged writes for the truth.
type ForceLink struct {
	Node       string `json:"node" doc:"whose copy"`
	AcceptLoss bool   `json:"accept_loss" doc:"what only others had is lost"`
}

// Resync is a copy that catches up.
type Resync struct {
	Link    string  `json:"link"`
	Left    uint64  `json:"left" doc:"bytes to copy"`
	Copied  uint64  `json:"copied" doc:"bytes since it began"`
	Rate    float64 `json:"rate" doc:"bytes per second"`
	Seconds float64 `json:"seconds_left" doc:"0: not known"`

	Unrecoverable uint64 `json:"unrecoverable,omitempty" doc:"bytes of those left that no node has any more: reading them is an error, writing them mends it"`
	Full          bool   `json:"full,omitempty" doc:"it waits for space on the brick"`
}

// Event is something that happened to the cluster.
type Event struct {
	Number uint64    `json:"number"`
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`
	Node   string    `json:"node,omitempty"`
	Text   string    `json:"text"`
}
