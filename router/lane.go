package router

// job waits for the bus, outside the loop, and returns what the loop is to do then.
type job func() (then func())

// lane runs jobs, a bounded number at a time and the rest in order. The loop owns it.
type lane struct {
	width    int
	running  int
	waiting  []job
	finished chan<- func() // holds the width, so that a job never waits for the loop
}

// submit runs j as soon as the lane has room.
func (l *lane) submit(j job) {
	if l.running == l.width {
		l.waiting = append(l.waiting, j)
		return
	}
	l.running++
	go l.run(j) // the loop does not end before it has received every then
}

func (l *lane) run(j job) {
	then := j()
	l.finished <- func() {
		l.running--
		then()
		l.advance()
	}
}

func (l *lane) advance() {
	if len(l.waiting) == 0 || l.running == l.width {
		return
	}
	next := l.waiting[0]
	l.waiting[0] = nil
	l.waiting = l.waiting[1:]
	l.submit(next)
}

// clear drops the jobs that have not begun.
func (l *lane) clear() { l.waiting = nil }
