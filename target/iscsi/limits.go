package iscsi

// Every limit of the target on what comes from the network stands here, so that
// they can be read together. Lengths are bytes unless the name says otherwise.
const (
	// MaxDataSegmentField is what the 24 bits of DataSegmentLength can say.
	MaxDataSegmentField = 1<<24 - 1
	// MaxAHS is what the 8 bits of TotalAHSLength can say, in 4-byte words.
	MaxAHS = 255 * 4
	// MaxCDB is the longest CDB with an Extended CDB AHS (SAM-5: 260).
	MaxCDB = 260

	// DefaultRecvDataSegment is MaxRecvDataSegmentLength where none was
	// negotiated: the login phase, discovery sessions and text (section 13.12).
	DefaultRecvDataSegment = 8192
	// RecvDataSegment is the MaxRecvDataSegmentLength we declare.
	RecvDataSegment = 256 << 10
	// MaxSendDataSegment is the longest data segment we send, whatever the
	// initiator would take: beyond it longer PDUs gain nothing.
	MaxSendDataSegment = 256 << 10
	// MaxBurst bounds MaxBurstLength (section 13.13; 16 MiB less a word, and a
	// multiple of 4 KiB, what open-iscsi asks for).
	MaxBurst = 16776192
	// FirstBurst bounds FirstBurstLength (section 13.14): data that comes
	// unasked holds memory that no R2T has granted.
	FirstBurst = 256 << 10
	// MinBurst is the least value of both, and of MaxRecvDataSegmentLength.
	MinBurst = 512
	// MaxOutstandingR2T bounds the R2Ts in flight for one task (section 13.17).
	MaxOutstandingR2T = 8

	// MaxKeyName is the longest name of a text key (section 6.1).
	MaxKeyName = 63
	// MaxValue is the longest value of a text key that says nothing else.
	MaxValue = 255
	// MaxLargeBinary is the longest binary value before its encoding, as
	// CHAP_C and CHAP_R (sections 6.1 and 12.1.3).
	MaxLargeBinary = 1024
	// MaxLargeValue is the longest value at all: MaxLargeBinary in hexadecimal
	// with its "0x".
	MaxLargeValue = 2 + 2*MaxLargeBinary
	// MaxText bounds the text of one request or response, all PDUs joined by
	// the C bit together.
	MaxText = 8192
	// MaxPairs bounds the keys in one such text.
	MaxPairs = 64

	// MaxName is the longest iSCSI name (section 4.2.7.1).
	MaxName = 223
	// MaxAlias is the longest alias.
	MaxAlias = 255

	// LoginRequests bounds the login request PDUs of one login, that is its
	// negotiation rounds and C-bit continuations.
	LoginRequests = 32
	// LoginBytes bounds the text of all of them together.
	LoginBytes = 32 << 10

	// MinSecret and MaxSecret bound a CHAP secret. 96 bits is what section
	// 9.2.1 wants without IPsec.
	MinSecret = 12
	MaxSecret = 255
	// MaxUserName is the longest CHAP_N.
	MaxUserName = 255
	// ChallengeSize is the length of the CHAP challenges we make. Section
	// 12.1.3 allows up to 1024; 32 bytes repeat never.
	ChallengeSize = 32

	// MaxPortals bounds the portals named for one target in SendTargets.
	MaxPortals = 64
	// MaxSendTargets bounds the whole answer to a SendTargets.
	MaxSendTargets = 4 << 20

	// LoginBuffer is what a Reader takes for a connection before login, and
	// ReadBuffer what it takes afterwards.
	LoginBuffer = 2 << 10
	ReadBuffer  = 128 << 10
)
