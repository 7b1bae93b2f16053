package router

// job waits for the bus, outside the loop, and returns what the loop is to do then.
type job func() (then func())

// lane runs jobs, a bounded number at a time. Of those that wait one of each tenant goes in turn, in order within a tenant, so
// that nobody waits for all that another has there. The loop owns it.
type lane struct {
	width    int
	running  int
	waiting  map[string][]job // by tenant
	turns    []string         // the tenants of those, the next first
	finished chan<- func()    // holds the width, so that a job never waits for the loop
}

// submit runs a job of no tenant as soon as the lane has room.
func (l *lane) submit(j job) { l.submitFor("", j) }

// submitFor runs a job of a tenant as soon as the lane has room.
func (l *lane) submitFor(tenant string, j job) {
	if l.running < l.width && len(l.turns) == 0 {
		l.start(j)
		return
	}
	if l.waiting == nil {
		l.waiting = make(map[string][]job)
	}
	if len(l.waiting[tenant]) == 0 {
		l.turns = append(l.turns, tenant)
	}
	l.waiting[tenant] = append(l.waiting[tenant], j)
}

func (l *lane) start(j job) {
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

// advance runs the job whose turn it is.
func (l *lane) advance() {
	if len(l.turns) == 0 || l.running == l.width {
		return
	}
	tenant := l.turns[0]
	l.turns = l.turns[1:]
	jobs := l.waiting[tenant]
	next := jobs[0]
	jobs[0] = nil
	if jobs = jobs[1:]; len(jobs) > 0 {
		l.waiting[tenant] = jobs
		l.turns = append(l.turns, tenant)
	} else {
		delete(l.waiting, tenant)
	}
	l.start(next)
}

// clear drops the jobs that have not begun.
func (l *lane) clear() { l.waiting, l.turns = nil, nil }
