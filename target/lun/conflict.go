package lun

// access is what a nexus may do under one state of the reservations.
type access struct{ state *reservationState }

// reservationAllows tells whether the nexus may carry out the command.
func (c *Command) reservationAllows() bool {
	c.seen = c.path.unit.reservations.state.Load()
	return true
}
