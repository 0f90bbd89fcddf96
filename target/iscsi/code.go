package iscsi

import "fmt"

// RejectReason says why a PDU was rejected (section 11.17.1).
type RejectReason uint8

// The reasons of a Reject.
const (
	RejectDataDigest          RejectReason = 0x02
	RejectSNACK               RejectReason = 0x03
	RejectProtocolError       RejectReason = 0x04
	RejectCommandNotSupported RejectReason = 0x05
	RejectTooManyImmediate    RejectReason = 0x06
	RejectTaskInProgress      RejectReason = 0x07
	RejectInvalidDataACK      RejectReason = 0x08
	RejectInvalidPDUField     RejectReason = 0x09
	RejectOutOfResources      RejectReason = 0x0a // long operation reject
	RejectWaitingForLogout    RejectReason = 0x0c
)

var rejectNames = []string{
	RejectDataDigest:          "data digest error",
	RejectSNACK:               "SNACK reject",
	RejectProtocolError:       "protocol error",
	RejectCommandNotSupported: "command not supported",
	RejectTooManyImmediate:    "too many immediate commands",
	RejectTaskInProgress:      "task in progress",
	RejectInvalidDataACK:      "invalid data ACK",
	RejectInvalidPDUField:     "invalid PDU field",
	RejectOutOfResources:      "long operation reject, out of resources",
	RejectWaitingForLogout:    "waiting for logout",
}

func (r RejectReason) String() string { return name(rejectNames, uint8(r), "reject reason") }

// TaskFunction is a task management function (section 11.5.1; from 9 on RFC
// 7144, section 4.1.1).
type TaskFunction uint8

// The functions of a task management function request.
const (
	AbortTask        TaskFunction = 1
	AbortTaskSet     TaskFunction = 2
	ClearACA         TaskFunction = 3
	ClearTaskSet     TaskFunction = 4
	LogicalUnitReset TaskFunction = 5
	TargetWarmReset  TaskFunction = 6
	TargetColdReset  TaskFunction = 7
	TaskReassign     TaskFunction = 8
	QueryTask        TaskFunction = 9
	QueryTaskSet     TaskFunction = 10
	ITNexusReset     TaskFunction = 11
	QueryAsyncEvent  TaskFunction = 12
)

var taskFunctionNames = []string{
	AbortTask:        "ABORT TASK",
	AbortTaskSet:     "ABORT TASK SET",
	ClearACA:         "CLEAR ACA",
	ClearTaskSet:     "CLEAR TASK SET",
	LogicalUnitReset: "LOGICAL UNIT RESET",
	TargetWarmReset:  "TARGET WARM RESET",
	TargetColdReset:  "TARGET COLD RESET",
	TaskReassign:     "TASK REASSIGN",
	QueryTask:        "QUERY TASK",
	QueryTaskSet:     "QUERY TASK SET",
	ITNexusReset:     "I_T NEXUS RESET",
	QueryAsyncEvent:  "QUERY ASYNCHRONOUS EVENT",
}

func (f TaskFunction) String() string { return name(taskFunctionNames, uint8(f), "task function") }

// TaskResponseCode answers a task management function (section 11.6.1).
type TaskResponseCode uint8

// The responses to a task management function request.
const (
	TaskFunctionComplete     TaskResponseCode = 0
	TaskDoesNotExist         TaskResponseCode = 1
	TaskLUNDoesNotExist      TaskResponseCode = 2
	TaskStillAllegiant       TaskResponseCode = 3
	TaskReassignNotSupported TaskResponseCode = 4
	TaskFunctionNotSupported TaskResponseCode = 5
	TaskAuthorizationFailed  TaskResponseCode = 6
	TaskFunctionSucceeded    TaskResponseCode = 7 // RFC 7144
	TaskFunctionRejected     TaskResponseCode = 255
)

var taskResponseNames = []string{
	TaskFunctionComplete:     "function complete",
	TaskDoesNotExist:         "task does not exist",
	TaskLUNDoesNotExist:      "LUN does not exist",
	TaskStillAllegiant:       "task still allegiant",
	TaskReassignNotSupported: "task allegiance reassignment not supported",
	TaskFunctionNotSupported: "function not supported",
	TaskAuthorizationFailed:  "function authorization failed",
	TaskFunctionSucceeded:    "function succeeded",
}

func (c TaskResponseCode) String() string {
	if c == TaskFunctionRejected {
		return "function rejected"
	}
	return name(taskResponseNames, uint8(c), "task response")
}

// LogoutReason says what a logout is to end (section 11.14.1).
type LogoutReason uint8

// The reasons of a logout request.
const (
	LogoutSession    LogoutReason = 0
	LogoutConnection LogoutReason = 1
	LogoutRecovery   LogoutReason = 2 // remove the connection for recovery
)

var logoutReasonNames = []string{
	LogoutSession:    "close the session",
	LogoutConnection: "close the connection",
	LogoutRecovery:   "remove the connection for recovery",
}

func (r LogoutReason) String() string { return name(logoutReasonNames, uint8(r), "logout reason") }

// LogoutCode answers a logout (section 11.15.1).
type LogoutCode uint8

// The responses to a logout request.
const (
	LogoutDone                LogoutCode = 0
	LogoutCIDNotFound         LogoutCode = 1
	LogoutRecoveryUnsupported LogoutCode = 2
	LogoutCleanupFailed       LogoutCode = 3
)

var logoutCodeNames = []string{
	LogoutDone:                "closed",
	LogoutCIDNotFound:         "CID not found",
	LogoutRecoveryUnsupported: "connection recovery not supported",
	LogoutCleanupFailed:       "cleanup failed",
}

func (c LogoutCode) String() string { return name(logoutCodeNames, uint8(c), "logout response") }

// AsyncEvent is the event of an asynchronous message (section 11.9.1).
type AsyncEvent uint8

// The events of an asynchronous message.
const (
	AsyncSCSI           AsyncEvent = 0 // sense data follows
	AsyncLogoutRequest  AsyncEvent = 1
	AsyncDropConnection AsyncEvent = 2
	AsyncDropSession    AsyncEvent = 3
	AsyncNegotiate      AsyncEvent = 4
	AsyncTaskTerminated AsyncEvent = 5
)

var asyncEventNames = []string{
	AsyncSCSI:           "SCSI asynchronous event",
	AsyncLogoutRequest:  "logout request",
	AsyncDropConnection: "connection will be dropped",
	AsyncDropSession:    "session will be dropped",
	AsyncNegotiate:      "negotiation request",
	AsyncTaskTerminated: "tasks of the LU terminated",
}

func (e AsyncEvent) String() string { return name(asyncEventNames, uint8(e), "asynchronous event") }

// TaskAttribute is the attribute of a SCSI command (section 11.3.1.2).
type TaskAttribute uint8

// The task attributes.
const (
	Untagged    TaskAttribute = 0
	Simple      TaskAttribute = 1
	Ordered     TaskAttribute = 2
	HeadOfQueue TaskAttribute = 3
	ACA         TaskAttribute = 4
)

var attributeNames = []string{
	Untagged: "UNTAGGED", Simple: "SIMPLE", Ordered: "ORDERED", HeadOfQueue: "HEAD OF QUEUE", ACA: "ACA",
}

func (a TaskAttribute) String() string { return name(attributeNames, uint8(a), "task attribute") }

// ResponseCode is the iSCSI service response (section 11.4.3).
type ResponseCode uint8

// The iSCSI service responses.
const (
	CommandCompleted ResponseCode = 0 // completed at target: the SCSI status holds
	TargetFailure    ResponseCode = 1
)

var responseNames = []string{CommandCompleted: "command completed at target", TargetFailure: "target failure"}

func (c ResponseCode) String() string { return name(responseNames, uint8(c), "response") }

// SNACKType says what a SNACK asks for (section 11.16.1).
type SNACKType uint8

// The types of a SNACK.
const (
	SNACKData   SNACKType = 0 // Data-In or R2T
	SNACKStatus SNACKType = 1
	SNACKACK    SNACKType = 2
	SNACKRData  SNACKType = 3
)

var snackNames = []string{SNACKData: "Data/R2T", SNACKStatus: "Status", SNACKACK: "DataACK", SNACKRData: "R-Data"}

func (t SNACKType) String() string { return name(snackNames, uint8(t), "SNACK type") }

// Stage is a stage of the login phase (section 11.12.3).
type Stage uint8

// The stages of a login; 2 is not one.
const (
	StageSecurity    Stage = 0
	StageOperational Stage = 1
	StageFullFeature Stage = 3
)

var stageNames = []string{
	StageSecurity: "SecurityNegotiation", StageOperational: "LoginOperationalNegotiation", StageFullFeature: "FullFeaturePhase",
}

func (s Stage) String() string { return name(stageNames, uint8(s), "stage") }

// LoginStatus is Status-Class (high byte) and Status-Detail (low byte) of a
// login response (section 11.13.5).
type LoginStatus uint16

// The statuses of a login.
const (
	LoginSuccess            LoginStatus = 0x0000
	LoginMovedTemporarily   LoginStatus = 0x0101
	LoginMovedPermanently   LoginStatus = 0x0102
	LoginInitiatorError     LoginStatus = 0x0200
	LoginAuthFailure        LoginStatus = 0x0201
	LoginForbidden          LoginStatus = 0x0202
	LoginNotFound           LoginStatus = 0x0203
	LoginTargetRemoved      LoginStatus = 0x0204
	LoginUnsupportedVersion LoginStatus = 0x0205
	LoginTooManyConnections LoginStatus = 0x0206
	LoginMissingParameter   LoginStatus = 0x0207
	LoginCantInclude        LoginStatus = 0x0208 // cannot include the connection in the session
	LoginSessionType        LoginStatus = 0x0209 // session type not supported
	LoginNoSession          LoginStatus = 0x020a // session does not exist
	LoginInvalidRequest     LoginStatus = 0x020b // invalid during login
	LoginTargetError        LoginStatus = 0x0300
	LoginUnavailable        LoginStatus = 0x0301 // service unavailable
	LoginOutOfResources     LoginStatus = 0x0302
)

var loginStatusNames = map[LoginStatus]string{
	LoginSuccess:            "success",
	LoginMovedTemporarily:   "target moved temporarily",
	LoginMovedPermanently:   "target moved permanently",
	LoginInitiatorError:     "initiator error",
	LoginAuthFailure:        "authentication failure",
	LoginForbidden:          "authorization failure",
	LoginNotFound:           "not found",
	LoginTargetRemoved:      "target removed",
	LoginUnsupportedVersion: "unsupported version",
	LoginTooManyConnections: "too many connections",
	LoginMissingParameter:   "missing parameter",
	LoginCantInclude:        "can't include in session",
	LoginSessionType:        "session type not supported",
	LoginNoSession:          "session does not exist",
	LoginInvalidRequest:     "invalid during login",
	LoginTargetError:        "target error",
	LoginUnavailable:        "service unavailable",
	LoginOutOfResources:     "out of resources",
}

func (s LoginStatus) String() string {
	if n, ok := loginStatusNames[s]; ok {
		return n
	}
	return fmt.Sprintf("login status 0x%04x", uint16(s))
}

// Class is the status class: 0 success, 1 redirection, 2 initiator error, 3
// target error.
func (s LoginStatus) Class() uint8 { return uint8(s >> 8) }

// Detail is the status detail within the class.
func (s LoginStatus) Detail() uint8 { return uint8(s) }
