package session

// taskTable finds a task by its initiator task tag. It is a chained hash table
// through the tasks themselves, so that it never allocates. Initiators count
// tags up or use the index of a command slot; either way the low bits spread.
type taskTable struct {
	chains [tableChains]*task
	count  int
}

const tableChains = 128 // a power of two

func (h *taskTable) get(itt uint32) *task {
	for t := h.chains[itt%tableChains]; t != nil; t = t.chain {
		if t.itt == itt {
			return t
		}
	}
	return nil
}

// put adds t; its tag must not be in the table.
func (h *taskTable) put(t *task) {
	head := &h.chains[t.itt%tableChains]
	t.chain, *head = *head, t
	h.count++
}

// remove takes t out; it must be in the table.
func (h *taskTable) remove(t *task) {
	at := &h.chains[t.itt%tableChains]
	for *at != t {
		at = &(*at).chain
	}
	*at, t.chain = t.chain, nil
	h.count--
}

// each calls f for every task; f may remove the task it is given.
func (h *taskTable) each(f func(*task)) {
	for i := range h.chains {
		for t := h.chains[i]; t != nil; {
			next := t.chain
			f(t)
			t = next
		}
	}
}
