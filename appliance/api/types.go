package api

import "time"

// Disk is a virtual disk.
type Disk struct {
	ID        string    `json:"id" doc:"UUID; the disk's NAA name and serial number come from it"`
	Name      string    `json:"name"`
	Size      uint64    `json:"size" doc:"bytes"`
	Used      uint64    `json:"used" doc:"bytes of space that hold data"`
	BlockSize int       `json:"block_size" doc:"logical block length in bytes, 512 or 4096"`
	WriteBack bool      `json:"write_back" doc:"writes are acknowledged before they are durable"`
	ReadOnly  bool      `json:"read_only"`
	Created   time.Time `json:"created"`
	Scheme    string    `json:"scheme" enum:"stripe,mirror,mirror3" doc:"stripe: one copy; mirror: two; mirror3: three"`
	Health    Health    `json:"health"`
	Exports   []Export  `json:"exports" doc:"where initiators find it"`
	Sessions  int       `json:"sessions" doc:"sessions at the node that answers, logged in to a target that exports it"`
}

// Export is a place where a disk can be reached.
type Export struct {
	Target string `json:"target"`
	LUN    uint16 `json:"lun"`
}

// NewDisk asks for a disk.
type NewDisk struct {
	Name      string  `json:"name"`
	Size      uint64  `json:"size" doc:"bytes, a multiple of the block size"`
	BlockSize int     `json:"block_size,omitempty" doc:"512 (default) or 4096"`
	WriteBack bool    `json:"write_back,omitempty"`
	ReadOnly  bool    `json:"read_only,omitempty"`
	Scheme    string  `json:"scheme,omitempty" enum:"stripe,mirror,mirror3" doc:"default: mirror if there are two nodes with disks, else stripe"`
	Target    string  `json:"target,omitempty" doc:"target that exports it, made if missing; default: the node's IQN base, a colon and the name"`
	LUN       *uint16 `json:"lun,omitempty" doc:"0 to 255; default: the lowest never used in that target"`
	NoExport  bool    `json:"no_export,omitempty" doc:"do not map it to any target"`
}

// DiskChange changes what is not nil.
type DiskChange struct {
	Size      *uint64 `json:"size,omitempty" doc:"bytes"`
	Shrink    bool    `json:"shrink,omitempty" doc:"a smaller size is meant: what lies beyond is lost"`
	Force     bool    `json:"force,omitempty" doc:"shrink it even if initiators use it"`
	WriteBack *bool   `json:"write_back,omitempty"`
	ReadOnly  *bool   `json:"read_only,omitempty"`
}

// LUN is a disk in a target.
type LUN struct {
	Number uint16 `json:"lun"`
	Disk   string `json:"disk" doc:"the disk's name"`
}

// Target is an iSCSI target.
type Target struct {
	Name       string   `json:"name"`
	LUNs       []LUN    `json:"luns"`
	Initiators []string `json:"initiators" doc:"names that may log in; empty: all"`
	CHAP       CHAP     `json:"chap"`
	Sessions   int      `json:"sessions" doc:"at the node that answers"`
}

// CHAP says who authenticates. Secrets are never shown.
type CHAP struct {
	User       string `json:"user,omitempty" doc:"the initiator's user; empty: no authentication"`
	MutualUser string `json:"mutual_user,omitempty" doc:"the target's user; empty: the target does not authenticate itself"`
}

// CHAPAccount sets users and secrets. An empty user removes them.
type CHAPAccount struct {
	User         string `json:"user"`
	Secret       string `json:"secret,omitempty" doc:"12 to 255 bytes"`
	MutualUser   string `json:"mutual_user,omitempty"`
	MutualSecret string `json:"mutual_secret,omitempty" doc:"12 to 255 bytes, not the same as secret"`
}

// Session is one initiator logged in.
type Session struct {
	ID           string    `json:"id" doc:"names it for kill"`
	Target       string    `json:"target"`
	Initiator    string    `json:"initiator"`
	ISID         string    `json:"isid"`
	TSIH         uint16    `json:"tsih"`
	Remote       string    `json:"remote"`
	Portal       string    `json:"portal"`
	HeaderDigest bool      `json:"header_digest"`
	DataDigest   bool      `json:"data_digest"`
	Since        time.Time `json:"since"`
	Outstanding  int       `json:"outstanding" doc:"commands in flight"`
}

// Status is how a node is, and what it knows of the cluster.
type Status struct {
	Node        string    `json:"node"`
	Version     string    `json:"version"`
	State       string    `json:"state" enum:"ok,degraded,suspended,draining" doc:"degraded: something is listed under problems; suspended: the node may not serve disks now"`
	ClusterID   string    `json:"cluster_id"`
	Incarnation uint64    `json:"incarnation" doc:"starts of this node so far"`
	PID         int       `json:"pid"`
	Started     time.Time `json:"started"`
	RecoveryMS  float64   `json:"recovery_ms" doc:"time from start to serving, in milliseconds"`
	Portals     []Portal  `json:"portals"`
	Bricks      []Brick   `json:"bricks"`
	Cache       Cache     `json:"cache"`
	Cluster     Cluster   `json:"cluster"`
	Disks       int       `json:"disks"`
	Unhealthy   []Unwell  `json:"unhealthy" doc:"the disks that are not healthy"`
	Resync      []Resync  `json:"resync" doc:"copies that this node is catching up on"`
	Targets     int       `json:"targets"`
	Sessions    int       `json:"sessions"`
	Problems    []string  `json:"problems" doc:"what an operator should look at; empty when all is well"`
}

// Portal is one listening address.
type Portal struct {
	Listen string `json:"listen"`
	Group  uint16 `json:"group"`
	State  string `json:"state" enum:"listening,closed" doc:"closed: the node may not serve disks now"`
	Error  string `json:"error,omitempty" doc:"why it does not listen though it may"`
}

// Brick is one disk of the node.
type Brick struct {
	Path            string `json:"path"`
	State           string `json:"state" enum:"ok,failed"`
	Error           string `json:"error,omitempty" doc:"why it has failed"`
	Direct          bool   `json:"direct" doc:"reads and writes bypass the page cache"`
	Used            uint64 `json:"used" doc:"bytes"`
	Available       uint64 `json:"available" doc:"bytes"`
	Total           uint64 `json:"total" doc:"bytes"`
	JournalUsed     uint64 `json:"journal_used" doc:"bytes"`
	JournalCapacity uint64 `json:"journal_capacity" doc:"bytes"`
	ChecksumErrors  uint64 `json:"checksum_errors" doc:"blocks read that failed their checksum, since the start"`
}

// Cache is the read cache.
type Cache struct {
	Used   uint64 `json:"used" doc:"bytes"`
	Budget uint64 `json:"budget" doc:"bytes"`
	Hits   uint64 `json:"hits" doc:"blocks"`
	Misses uint64 `json:"misses" doc:"blocks"`
}
