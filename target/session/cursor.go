package session

// cursor walks through scattered memory from its front to its end. DataPDUInOrder
// and DataSequenceInOrder are always Yes here, so nothing ever goes back.
type cursor struct {
	vec [][]byte
	at  int // bytes of vec[0] already passed
}

// next passes up to n contiguous bytes and returns them: fewer at the end of a
// piece, none only when the memory is used up or n is 0.
func (c *cursor) next(n int) []byte {
	for len(c.vec) > 0 && c.at == len(c.vec[0]) {
		c.vec, c.at = c.vec[1:], 0
	}
	if len(c.vec) == 0 || n <= 0 {
		return nil
	}
	p := c.vec[0][c.at:]
	if len(p) > n {
		p = p[:n:n]
	}
	c.at += len(p)
	return p
}

// fill copies p into the memory and returns how much of it found room.
func (c *cursor) fill(p []byte) int {
	done := 0
	for done < len(p) {
		q := c.next(len(p) - done)
		if q == nil {
			break
		}
		done += copy(q, p[done:])
	}
	return done
}
