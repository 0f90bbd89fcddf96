package login

import (
	"errors"
	"fmt"

	"petal/target/iscsi"
)

// Authority decides who may log in and what there is to be seen. Its methods
// answer from what the node knows, without waiting: an initiator gives a login
// five seconds. They may be called from many goroutines.
type Authority interface {
	// Admit decides about a login by its names, before authentication. In a
	// discovery session target is empty. Both names are in normal form.
	Admit(initiator, target string) Admission
	// Targets are the targets that the initiator may see, each with the
	// portals that this initiator can use.
	Targets(initiator string) []Target
}

// Admission is an Authority's decision.
type Admission struct {
	// Status is LoginSuccess, or why the login is refused or redirected:
	// LoginForbidden, LoginNotFound, LoginTargetRemoved, LoginUnavailable,
	// LoginOutOfResources, LoginMovedTemporarily, LoginMovedPermanently...
	Status iscsi.LoginStatus
	// Redirect is where a Moved status sends the initiator: address:port.
	Redirect string
	// CHAP is how the initiator has to authenticate itself; nil if it need not.
	CHAP *CHAP
	// PortalGroup is the target portal group tag of the portal on which the
	// login came, and Alias the target's alias, if it has one.
	PortalGroup uint16
	Alias       string
}

// Target is a target as SendTargets tells of it.
type Target struct {
	Name    string
	Portals []Portal
}

// Portal is an address at which a target is served: host:port, an IPv6 host in
// brackets.
type Portal struct {
	Address string
	Group   uint16 // target portal group tag
}

// Nexus identifies a session among those of one node: the initiator port
// (name and ISID) and the target port (section 4.4.3.1, 10.1.2).
type Nexus struct {
	Initiator string
	ISID      iscsi.ISID
	Target    string // empty for discovery sessions
}

// Sessions knows which sessions exist. Its methods may be called from many
// goroutines.
type Sessions interface {
	// Connection returns the CID of the connection of the nexus' session,
	// whose TSIH must be tsih unless that is zero.
	Connection(n Nexus, tsih uint16) (cid uint16, ok bool)
	// NewTSIH returns a TSIH that no session has, not zero, and none for which
	// a login is under way; false if there is none.
	NewTSIH() (uint16, bool)
}

// CHAP is how an initiator authenticates itself to a target and, if
// MutualSecret is set, the target to the initiator.
type CHAP struct {
	Algorithms               []Algorithm // allowed; all of them if empty
	User, Secret             string
	MutualUser, MutualSecret string
}

// Validate checks that the secrets are of use, with an error that says what to
// do. Whoever stores a CHAP calls it; a login with one that fails ends with
// LoginTargetError.
func (c *CHAP) Validate() error {
	if c.User == "" || len(c.User) > iscsi.MaxUserName || len(c.MutualUser) > iscsi.MaxUserName {
		return fmt.Errorf("CHAP user names have 1 to %d bytes", iscsi.MaxUserName)
	}
	if err := ValidateSecret(c.Secret); err != nil {
		return err
	}
	for _, a := range c.Algorithms {
		if hashes[a] == nil {
			return fmt.Errorf("CHAP algorithm %d is not one of MD5 (5), SHA1 (6), SHA-256 (7), SHA3-256 (8)", a)
		}
	}
	if c.MutualSecret == "" {
		return nil
	}
	if c.MutualUser == "" {
		return errors.New("mutual CHAP needs a user name for the target")
	}
	if err := ValidateSecret(c.MutualSecret); err != nil {
		return fmt.Errorf("mutual %w", err)
	}
	// Section 9.2.1: "the same secret MUST NOT be used" in both directions.
	if c.Secret == c.MutualSecret {
		return errors.New("the CHAP secrets of initiator and target must differ")
	}
	return nil
}

// ValidateSecret checks the length of a CHAP secret: 12 to 255 bytes.
func ValidateSecret(secret string) error {
	if n := len(secret); n < iscsi.MinSecret || n > iscsi.MaxSecret {
		return fmt.Errorf("CHAP secret has %d bytes; RFC 7143 wants at least %d (96 bits), and at most %d are taken (some initiators take only 16)",
			n, iscsi.MinSecret, iscsi.MaxSecret)
	}
	return nil
}
