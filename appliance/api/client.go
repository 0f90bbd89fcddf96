package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const maxAnswer = 64 << 20 // bytes of one answer

// Client talks to the node behind an admin socket. It implements Service; its
// methods wait for the answer. Errors are *Error.
type Client struct {
	http http.Client
	// OnStale, if not nil, is called when an answer comes from a node without
	// quorum: what it tells of the cluster may be old.
	OnStale func()

	patience time.Duration // with questions that change nothing
}

// errSilent ends a question that nobody answers.
var errSilent = errors.New("no answer")

// clientPatience is far more than a node needs that is well, or has lost the
// majority.
const clientPatience = 10 * time.Second

var _ Service = (*Client)(nil)

// NewClient returns a client of the socket at path. It connects when first used.
func NewClient(path string) *Client {
	return &Client{patience: clientPatience, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
	}}}
}

// call sends body, if not nil, and decodes the answer into answer, if not nil.
func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	}
	if method == http.MethodGet {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.patience, errSilent)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://petal"+path, r)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return c.brokeOff(ctx, err)
	}
	defer resp.Body.Close()
	if c.OnStale != nil && resp.StatusCode < 300 && resp.Header.Get(quorumHeader) == "no" {
		c.OnStale()
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.brokeOff(ctx, err)
	}
	if resp.StatusCode >= 300 {
		return answeredError(resp, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// brokeOff says what became of a question that has no answer, or half of one.
func (c *Client) brokeOff(ctx context.Context, err error) error {
	var e *Error
	switch {
	case context.Cause(ctx) == errSilent: // whatever it was that took so long, connecting included
		return &Error{Kind: Unreachable, Message: fmt.Sprintf("the node has not answered for %v", c.patience), Advice: "its process is stopped, or hangs: look at it and its log, or ask another node"}
	case errors.As(err, &e):
		return e
	}
	return &Error{Kind: Unreachable, Message: fmt.Sprintf("the node broke off: %v", err), Advice: "see its log; it may be stopping"}
}

func answeredError(resp *http.Response, text []byte) error {
	e := &Error{}
	if json.Unmarshal(text, e) != nil || e.Message == "" {
		e = &Error{Kind: Internal, Message: fmt.Sprintf("the node answered %s", resp.Status), Advice: "is it of another version? compare `petal version` and `petal status`"}
	}
	return e
}

func get[T any](ctx context.Context, c *Client, method, path string, body any) (answer T, err error) {
	err = c.call(ctx, method, path, body, &answer)
	return answer, err
}

func diskPath(name string) string   { return "/v1/disks/" + url.PathEscape(name) }
func targetPath(name string) string { return "/v1/targets/" + url.PathEscape(name) }

// Status asks how the node is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "GET", "/v1/status", nil)
}

// Disks lists the disks by name.
func (c *Client) Disks(ctx context.Context) ([]Disk, error) {
	return get[[]Disk](ctx, c, "GET", "/v1/disks", nil)
}

// Disk returns one disk.
func (c *Client) Disk(ctx context.Context, name string) (Disk, error) {
	return get[Disk](ctx, c, "GET", diskPath(name), nil)
}

// CreateDisk makes a disk.
func (c *Client) CreateDisk(ctx context.Context, d NewDisk) (Disk, error) {
	return get[Disk](ctx, c, "POST", "/v1/disks", d)
}

// ChangeDisk resizes a disk or changes how it behaves.
func (c *Client) ChangeDisk(ctx context.Context, name string, change DiskChange) (Disk, error) {
	return get[Disk](ctx, c, "PATCH", diskPath(name), change)
}

// DeleteDisk removes a disk and all its data.
func (c *Client) DeleteDisk(ctx context.Context, name string, force bool) error {
	return c.call(ctx, "DELETE", diskPath(name)+"?force="+strconv.FormatBool(force), nil, nil)
}

// Targets lists the targets by name.
func (c *Client) Targets(ctx context.Context) ([]Target, error) {
	return get[[]Target](ctx, c, "GET", "/v1/targets", nil)
}

// Target returns one target.
func (c *Client) Target(ctx context.Context, name string) (Target, error) {
	return get[Target](ctx, c, "GET", targetPath(name), nil)
}

// CreateTarget makes a target without LUNs.
func (c *Client) CreateTarget(ctx context.Context, name string) (Target, error) {
	return get[Target](ctx, c, "POST", "/v1/targets", nameBody{name})
}

// DeleteTarget removes a target; its disks stay.
func (c *Client) DeleteTarget(ctx context.Context, name string, force bool) error {
	return c.call(ctx, "DELETE", targetPath(name)+"?force="+strconv.FormatBool(force), nil, nil)
}

// MapLUN makes a disk a LUN of a target.
func (c *Client) MapLUN(ctx context.Context, target string, lun *uint16, disk string) (Target, error) {
	return get[Target](ctx, c, "POST", targetPath(target)+"/luns", mapBody{disk, lun})
}

// UnmapLUN takes a LUN out of a target; the disk stays.
func (c *Client) UnmapLUN(ctx context.Context, target string, lun uint16, force bool) error {
	return c.call(ctx, "DELETE", fmt.Sprintf("%s/luns/%d?force=%t", targetPath(target), lun, force), nil, nil)
}

// SetACL replaces the initiators that may log in; none means all may.
func (c *Client) SetACL(ctx context.Context, target string, initiators []string) (Target, error) {
	if initiators == nil {
		initiators = []string{}
	}
	return get[Target](ctx, c, "PUT", targetPath(target)+"/acl", aclBody{initiators})
}

// SetCHAP sets or removes a target's account.
func (c *Client) SetCHAP(ctx context.Context, target string, account CHAPAccount) (Target, error) {
	return get[Target](ctx, c, "PUT", targetPath(target)+"/chap", account)
}

// DiscoveryCHAP shows the account of discovery sessions.
func (c *Client) DiscoveryCHAP(ctx context.Context) (CHAP, error) {
	return get[CHAP](ctx, c, "GET", "/v1/discovery/chap", nil)
}

// SetDiscoveryCHAP sets or removes the account of discovery sessions.
func (c *Client) SetDiscoveryCHAP(ctx context.Context, account CHAPAccount) error {
	return c.call(ctx, "PUT", "/v1/discovery/chap", account, nil)
}

// Sessions lists who is logged in.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	return get[[]Session](ctx, c, "GET", "/v1/sessions", nil)
}

// KillSession ends a session; its initiator will normally log in again.
func (c *Client) KillSession(ctx context.Context, id string) error {
	return c.call(ctx, "DELETE", "/v1/sessions/"+url.PathEscape(id), nil, nil)
}

// Nodes lists the members of the cluster.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	return get[[]Node](ctx, c, "GET", "/v1/nodes", nil)
}

// RemoveNode takes a node out of the cluster for good.
func (c *Client) RemoveNode(ctx context.Context, name string) error {
	return c.call(ctx, "DELETE", "/v1/nodes/"+url.PathEscape(name), nil, nil)
}

// ReportEnd says that the process of a node has ended.
func (c *Client) ReportEnd(ctx context.Context, name string, incarnation uint64) error {
	return c.call(ctx, "POST", "/v1/nodes/"+url.PathEscape(name)+"/ended", endBody{incarnation}, nil)
}

// CreateToken makes a token with which nodes join.
func (c *Client) CreateToken(ctx context.Context, t NewToken) (Token, error) {
	return get[Token](ctx, c, "POST", "/v1/tokens", t)
}

// Links lists the groups of nodes that hold the same data.
func (c *Client) Links(ctx context.Context) ([]Link, error) {
	return get[[]Link](ctx, c, "GET", "/v1/links", nil)
}

// ForceLink takes one node's copy for the truth.
func (c *Client) ForceLink(ctx context.Context, id string, f ForceLink) error {
	return c.call(ctx, "POST", "/v1/links/"+url.PathEscape(id)+"/force", f, nil)
}

// Events lists what happened after the event of that number.
func (c *Client) Events(ctx context.Context, after uint64) ([]Event, error) {
	return get[[]Event](ctx, c, "GET", fmt.Sprintf("/v1/events?after=%d", after), nil)
}

// Throttle bounds how fast the node copies what it has missed.
func (c *Client) Throttle(ctx context.Context, rate int64) error {
	return c.call(ctx, "PUT", "/v1/throttle", throttleBody{rate}, nil)
}

// Cut has the node hear and say nothing to other nodes, or ends that.
func (c *Client) Cut(ctx context.Context, on bool) error {
	return c.call(ctx, "PUT", "/v1/debug/cut", cutBody{on}, nil)
}
