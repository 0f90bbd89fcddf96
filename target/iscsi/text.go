package iscsi

import "bytes"

// Pair is a text key and its value (section 6.1).
type Pair struct{ Key, Value string }

// ParseText splits the text of one request or response, all its PDUs joined,
// into pairs. It checks lengths, the characters of keys, that the text ends
// where a pair ends, and that no key comes twice; the values are not looked
// into. Every error is a *RejectError with RejectProtocolError.
func ParseText(b []byte) ([]Pair, error) {
	if len(b) > MaxText {
		return nil, textError("more than MaxText bytes of text")
	}
	var pairs []Pair
	for len(b) > 0 {
		// "Every key=value pair, including the last or only pair in a LTDS,
		// MUST be followed by one null (0x00) delimiter."
		item, rest, terminated := bytes.Cut(b, []byte{0})
		if !terminated {
			return nil, textError("the last key=value pair has no null delimiter")
		}
		b = rest
		if len(item) == 0 {
			continue // more nulls than need be: harmless, and sent by some as padding
		}
		p, err := parsePair(item)
		if err != nil {
			return nil, err
		}
		if _, twice := Lookup(pairs, p.Key); twice || len(pairs) == MaxPairs {
			return nil, textError("key " + p.Key + " comes twice, or there are too many keys")
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

func parsePair(item []byte) (Pair, error) {
	key, value, ok := bytes.Cut(item, []byte{'='})
	if !ok {
		return Pair{}, textError("text without =")
	}
	if len(key) == 0 || len(key) > MaxKeyName {
		return Pair{}, textError("key name is empty or longer than 63 bytes")
	}
	for _, c := range key {
		if !keyCharacter(c) {
			return Pair{}, textError("key name with a character that is not allowed")
		}
	}
	if len(value) > MaxLargeValue {
		return Pair{}, textError("value of " + string(key) + " is too long")
	}
	return Pair{Key: string(key), Value: string(value)}, nil
}

// keyCharacter reports whether c may be in a standard-label (section 6.1), or is
// the # of a registered extension (X#NodeArchitecture, RFC 4850).
func keyCharacter(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return c == '#' || c == '.' || c == '-' || c == '+' || c == '@' || c == '_'
}

// Lookup finds a key's value.
func Lookup(pairs []Pair, key string) (string, bool) {
	for _, p := range pairs {
		if p.Key == key {
			return p.Value, true
		}
	}
	return "", false
}

// AppendPair appends a pair in its wire form.
func AppendPair(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, 0)
}

// AppendText appends pairs in their wire form.
func AppendText(b []byte, pairs []Pair) []byte {
	for _, p := range pairs {
		b = AppendPair(b, p.Key, p.Value)
	}
	return b
}

// TextBuffer joins the data segments of text PDUs that have the C bit.
type TextBuffer struct{ b []byte }

// Add appends the data of one PDU. The error, a *RejectError, says that there
// is more than MaxText; then the buffer is empty again.
func (t *TextBuffer) Add(data []byte) error {
	if len(t.b)+len(data) > MaxText {
		t.b = nil
		return textError("more than MaxText bytes of text")
	}
	t.b = append(t.b, data...)
	return nil
}

// Len is how many bytes are waiting for their continuation.
func (t *TextBuffer) Len() int { return len(t.b) }

// Take returns what has been added and forgets it.
func (t *TextBuffer) Take() []byte {
	b := t.b
	t.b = nil
	return b
}

func textError(why string) error {
	return &RejectError{Reason: RejectProtocolError, Why: why}
}
