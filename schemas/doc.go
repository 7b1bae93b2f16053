// Package schemas holds everything that crosses a process boundary: subjects, stream and consumer names, headers,
// error codes, and the encodings of a request, a frame, a work item, a heartbeat and a result.
//
// Every name on the wire is written here and nowhere else. The package imports only the standard library, so that a
// service in another repository can depend on it without depending on Weir.
//
// Compatibility: a decoder accepts every version that was ever written (the golden files under testdata hold one of
// each), and keeps what it does not know, so that a record that passes through an older process loses nothing.
package schemas

// Version is the version of the wire format that this package writes, sent as [HeaderVersion].
const Version = 1
