package api

import (
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Kind classes errors for programs.
type Kind string

// The kinds, and the HTTP status that each is sent with.
const (
	Invalid     Kind = "invalid"     // 422: the request can never work
	NotFound    Kind = "not_found"   // 404
	Exists      Kind = "exists"      // 409
	InUse       Kind = "in_use"      // 409: it would work with force, or later
	NoSpace     Kind = "no_space"    // 507
	Unavailable Kind = "unavailable" // 503: the node cannot now
	Unreachable Kind = "unreachable" // never sent: the client did not reach a node
	Internal    Kind = "internal"    // 500
)

var kindStatus = map[Kind]int{
	Invalid: http.StatusUnprocessableEntity, NotFound: http.StatusNotFound, Exists: http.StatusConflict, InUse: http.StatusConflict,
	NoSpace: http.StatusInsufficientStorage, Unavailable: http.StatusServiceUnavailable, Internal: http.StatusInternalServerError,
}

// Error is the body of every answer that is not a success.
type Error struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message" doc:"what happened, naming the thing"`
	Advice  string `json:"hint,omitempty" doc:"what to do about it"`
}

func (e *Error) Error() string { return e.Message }

// Hint says what to do about it; it may be empty.
func (e *Error) Hint() string { return e.Advice }

// GetStatus is the HTTP status (for package huma).
func (e *Error) GetStatus() int {
	if s, ok := kindStatus[e.Kind]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// asError makes sure that what goes out is an *Error.
func asError(err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	out := &Error{Kind: Internal, Message: err.Error()}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		out.Advice = h.Hint()
	}
	return out
}

// newHumaError replaces huma's own error document, which has no hint.
func newHumaError(status int, msg string, errs ...error) huma.StatusError {
	kind := Internal
	switch {
	case status == http.StatusNotFound:
		kind = NotFound
	case status >= 400 && status < 500:
		kind = Invalid
	}
	parts := []string{msg}
	for _, err := range errs {
		if err != nil {
			parts = append(parts, err.Error())
		}
	}
	return &Error{Kind: kind, Message: strings.Join(parts, ": "), Advice: "GET /openapi.json describes every request"}
}
