package schemas

import "errors"

// CancelledBy is who ended a request before its time.
type CancelledBy string

// Who ends requests.
const (
	CancelledByCaller     CancelledBy = "caller"     // it asked for it
	CancelledByDisconnect CancelledBy = "disconnect" // it left, and nobody read on
	CancelledByDeadline   CancelledBy = "deadline"   // its time was up
	CancelledByErasure    CancelledBy = "erasure"    // the request was deleted
	CancelledByOperator   CancelledBy = "operator"   // whoever runs the pipeline, or a key that was revoked
)

// Cancel is the payload of a cancel hint. A hint without one is the caller's.
type Cancel struct {
	By CancelledBy

	Extra Extra
}

func (c *Cancel) extra() *Extra { return &c.Extra }

func (c *Cancel) members(m *members) { m.text("by", (*string)(&c.By), always) }

// Encode writes the payload as JSON.
func (c *Cancel) Encode() []byte { return appendRecord(nil, c) }

// DecodeCancel reads the payload of a hint. What cannot be read is a cancel all the same, of the caller.
func DecodeCancel(data []byte) *Cancel {
	c := &Cancel{}
	if len(data) == 0 || decodeRecord(data, c) != nil || !c.By.known() {
		return &Cancel{By: CancelledByCaller}
	}
	return c
}

func (by CancelledBy) known() bool {
	switch by {
	case CancelledByCaller, CancelledByDisconnect, CancelledByDeadline, CancelledByErasure, CancelledByOperator:
		return true
	}
	return false
}

// Error makes it a cause, so that whoever ends a call can tell for whom.
func (by CancelledBy) Error() string { return "cancelled by " + string(by) }

// Cancelled is the error of a request that somebody ended.
func Cancelled(by CancelledBy) *Error {
	message := "the request was cancelled"
	switch by {
	case CancelledByDisconnect:
		message = "the caller left and nobody read on; send " + HeaderOnDisconnect + ": continue to let a request go on"
	case CancelledByDeadline:
		return Errorf(CodeDeadline, "the request's deadline passed; allow more time with %s", HeaderDeadline).WithCause(by)
	case CancelledByErasure:
		message = "the request was deleted"
	case CancelledByOperator:
		message = "the request was cancelled by the operator"
	}
	return Errorf(CodeCancelled, "%s", message).WithCause(by)
}

// CancelledBy is who ended the request, when that is what the error tells: in this process by its cause, elsewhere the
// caller unless something else is known.
func (e *Error) CancelledBy() CancelledBy {
	by, known := errors.AsType[CancelledBy](e)
	switch {
	case known:
		return by
	case e.Code == CodeDeadline:
		return CancelledByDeadline
	case e.Code == CodeCancelled:
		return CancelledByCaller
	}
	return ""
}
