------------------------------- MODULE WriteThrough -------------------------------
(* Write-through from Redis to MongoDB: versions (term, batch) are begun in MongoDB; a `life` names each unbroken
   stretch of Redis's memory.  *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS Keys, Committers, MaxWrites, MaxTerm, MaxLosses, MaxSnaps, MaxSweeps,
          \* switches, to see what each mechanism is for
          UseLife, LifeInAck, LifeInGiveBack, AckedInAck, LeaseInAck, VersionFilter, TombFirst, LookAfterInsert,
          NewestTest, PresentLifeWins, GiveBackOn, TermOn, ReplidInLife

None == "none"
NoV == <<0, 0>>
NoB == [v |-> NoV, upto |-> <<0, 0>>, newest |-> <<0, 0>>, certain |-> <<0, 0>>]
Less(a, b) == a[1] < b[1] \/ (a[1] = b[1] /\ a[2] < b[2])
Absent == [w |-> 0, p |-> FALSE]

EmptyR == [doc |-> [k \in Keys |-> Absent], stream |-> <<>>, last |-> 0, life |-> 0,
           acked |-> [v |-> NoV, life |-> 0, id |-> 0], checked |-> 0, lease |-> None]

VARIABLES R, proc, snap, lives, losses, snaps,   \* Redis
          mdoc, tomb, term, log, ops,            \* MongoDB
          C,                                     \* committers
          wkey, tok, acknowledged, sweeps        \* ghosts: the key and token of each write

vars == <<R, proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps>>

Idle == [pc |-> "idle", term |-> 0, batch |-> 0, life |-> 0, left |-> EmptyR.acked, b |-> NoB, todo |-> {},
         n |-> 0, segs |-> {}, states |-> <<>>, upto |-> <<0, 0>>]

Init == /\ R = EmptyR /\ proc = 0 /\ snap = EmptyR /\ lives = 0 /\ losses = 0 /\ snaps = 0
        /\ mdoc = [k \in Keys |-> [w |-> 0, p |-> FALSE, v |-> NoV]]
        /\ tomb = [k \in Keys |-> [w |-> 0, v |-> NoV]]
        /\ term = 0 /\ log = NoB /\ ops = {}
        /\ C = [c \in Committers |-> Idle]
        /\ wkey = <<>> /\ tok = <<>> /\ acknowledged = {} /\ sweeps = 0

\* The present life, made if need be.
LifeOK(r) == IF UseLife THEN proc # 0 /\ r.life = proc ELSE TRUE
Living(r) == IF LifeOK(r) THEN r ELSE [r EXCEPT !.life = lives + 1]
Proc(r) == IF LifeOK(r) THEN proc ELSE lives + 1
Lives(r) == IF LifeOK(r) THEN lives ELSE lives + 1

Append1(r, k) == [r EXCEPT !.stream = Append(@, [id |-> r.last + 1, k |-> k, life |-> r.life]), !.last = @ + 1]
Waits(r, k) == \E i \in 1..Len(r.stream) : r.stream[i].k = k

Write(k, p) ==
  /\ Len(wkey) < MaxWrites
  /\ LET r == Living(R) IN LET s == Append1(r, k) IN
     /\ R' = [s EXCEPT !.doc[k] = [w |-> Len(wkey) + 1, p |-> p]]
     /\ proc' = Proc(R) /\ lives' = Lives(R)
     /\ wkey' = Append(wkey, k) /\ tok' = Append(tok, <<s.life, s.last>>)
  /\ UNCHANGED <<snap, losses, snaps, mdoc, tomb, term, log, ops, C, acknowledged, sweeps>>

Snapshot == /\ snaps < MaxSnaps /\ snap # R /\ snap' = R /\ snaps' = snaps + 1
            /\ UNCHANGED <<R, proc, lives, losses, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps>>
Crash == /\ losses < MaxLosses /\ losses' = losses + 1 /\ R' = snap /\ proc' = 0
         /\ UNCHANGED <<snap, snaps, lives, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps>>
\* A is demoted, B (which lagged) promoted, and A promoted again with B's data: A's process is the same one.
Failback == /\ losses < MaxLosses /\ losses' = losses + 1 /\ R' = snap /\ proc' = IF ReplidInLife THEN 0 ELSE proc
            /\ UNCHANGED <<snap, snaps, lives, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps>>
Flush == /\ losses < MaxLosses /\ losses' = losses + 1 /\ R' = EmptyR
         /\ UNCHANGED <<proc, snap, snaps, lives, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps>>

ExpireLease == /\ R.lease # None /\ R' = [R EXCEPT !.lease = None]
               /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged, sweeps>>

Die(c) == /\ C[c].pc # "idle" /\ C' = [C EXCEPT ![c] = Idle]
          /\ UNCHANGED <<R, proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps>>

TakeLease(c) ==
  /\ C[c].pc = "idle" /\ R.lease = None /\ term < MaxTerm
  /\ R' = [R EXCEPT !.lease = c] /\ C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]]
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps>>

\* The life comes first: a term that is begun after it is above all that was acknowledged in lives before.
Learn(c) ==
  /\ C[c].pc = "life" /\ term < MaxTerm
  /\ R' = Living(R) /\ proc' = Proc(R) /\ lives' = Lives(R)
  /\ C' = [C EXCEPT ![c].pc = "begin", ![c].life = R'.life]
  /\ UNCHANGED <<snap, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps>>

BeginTerm(c) ==
  /\ C[c].pc = "begin" /\ term' = (IF TermOn \/ term = 0 THEN term + 1 ELSE term)
  /\ C' = [C EXCEPT ![c].pc = "look", ![c].term = term', ![c].b = log, ![c].batch = IF TermOn THEN 0 ELSE (log.v[2])]
  /\ UNCHANGED <<R, proc, snap, lives, losses, snaps, mdoc, tomb, log, ops, wkey, tok, acknowledged, sweeps>>

OnStream(r, e) == \E i \in 1..Len(r.stream) : r.stream[i].id = e[2] /\ (UseLife => r.stream[i].life = e[1])

Look(c) ==
  /\ C[c].pc = "look"
  /\ LET b == C[c].b
         forgotten == /\ b.v # NoV /\ Less(R.acked.v, b.v) /\ (NewestTest => ~OnStream(R, b.newest)) /\ GiveBackOn
     IN C' = IF R.lease # c THEN [C EXCEPT ![c] = Idle]
             ELSE IF UseLife /\ ~(proc # 0 /\ R.life = proc /\ C[c].life = R.life) THEN [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]]
             ELSE [C EXCEPT ![c].pc = IF forgotten THEN "giveback" ELSE "check",
                          ![c].left = R.acked, ![c].todo = IF forgotten THEN Keys ELSE {}]
  /\ UNCHANGED <<R, proc, lives, snap, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps>>

\* What M holds of k: a document that is not dead, or a delete.
Alive(k) == mdoc[k].p /\ ~Less(mdoc[k].v, tomb[k].v)
Eff(k) == IF Alive(k) THEN mdoc[k].w ELSE tomb[k].w
EffV(k) == IF Alive(k) THEN mdoc[k].v ELSE tomb[k].v

Mine(c) == R.lease = c
SameLife(c) == proc # 0 /\ R.life = proc /\ C[c].life = R.life

GiveBack(c, k) ==
  /\ C[c].pc = "giveback" /\ k \in C[c].todo
  /\ IF ~Mine(c) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED R
     ELSE IF LifeInGiveBack /\ UseLife /\ ~SameLife(c) THEN C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]] /\ UNCHANGED R
     ELSE /\ C' = [C EXCEPT ![c].todo = @ \ {k}]
          /\ IF Less(C[c].left.v, EffV(k)) /\ ~(PresentLifeWins /\ \E i \in 1..Len(R.stream) : R.stream[i].k = k /\ R.stream[i].life = C[c].life)
             THEN R' = [R EXCEPT !.doc[k] = [w |-> Eff(k), p |-> Alive(k)]]
             ELSE UNCHANGED R
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps>>

EndGiveBack(c) ==
  /\ C[c].pc = "giveback" /\ C[c].todo = {}
  /\ IF ~Mine(c) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED R
     ELSE IF LifeInGiveBack /\ UseLife /\ ~SameLife(c) THEN C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]] /\ UNCHANGED R
     ELSE LET b == C[c].b IN
          /\ R' = [R EXCEPT !.acked = [v |-> b.v, life |-> b.certain[1], id |-> b.certain[2]]]
          /\ C' = [C EXCEPT ![c].pc = "check", ![c].left = R'.acked]
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps>>

Check(c) ==
  /\ C[c].pc = "check"
  /\ IF ~Mine(c) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED R
     ELSE IF UseLife /\ ~SameLife(c) THEN C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]] /\ UNCHANGED R
     ELSE R' = [R EXCEPT !.checked = R.life] /\ C' = [C EXCEPT ![c].pc = "loop"]
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, acknowledged, sweeps>>

\* A batch: the first n entries, one state per key, read in one step.
Read(c) ==
  /\ C[c].pc = "loop" /\ Len(R.stream) > 0
  /\ IF (UseLife /\ ~SameLife(c)) \/ R.acked # C[c].left
     THEN C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]] /\ UNCHANGED ops
     ELSE \E n \in 1..Len(R.stream) :
          LET es == {R.stream[i] : i \in 1..n}
              ks == {e.k : e \in es}
              v == <<C[c].term, C[c].batch + 1>>
              segs == {<<e.life, e.id>> : e \in es}
              newest == <<R.stream[Len(R.stream)].life, R.stream[Len(R.stream)].id>>
              upto == <<R.stream[n].life, R.stream[n].id>>
              dels == {k \in ks : ~R.doc[k].p}
              tombops == {[t |-> "tomb", c |-> c, k |-> k, w |-> R.doc[k].w, v |-> v] : k \in dels}
          IN /\ C' = [C EXCEPT ![c].pc = "tombs", ![c].batch = @ + 1, ![c].n = n, ![c].segs = segs, ![c].upto = upto,
                      ![c].states = [k \in ks |-> R.doc[k]], ![c].b = [v |-> v, upto |-> upto, newest |-> newest, certain |-> <<C[c].left.life, C[c].left.id>>]]
             /\ ops' = ops \cup tombops
  /\ UNCHANGED <<R, proc, snap, lives, losses, snaps, mdoc, tomb, term, log, wkey, tok, acknowledged, sweeps>>

OpsOf(c, v) == {o \in ops : o.c = c /\ o.v = v}
V(c) == <<C[c].term, C[c].batch>>

SendDocs(c) ==
  /\ C[c].pc = "tombs" /\ (TombFirst => OpsOf(c, V(c)) = {})
  /\ LET v == V(c) IN
     ops' = ops \cup {[t |-> IF C[c].states[k].p THEN "upsert" ELSE "delete", c |-> c, k |-> k, w |-> C[c].states[k].w, v |-> v]
                       : k \in DOMAIN C[c].states}
                \cup {[t |-> "log", c |-> c, k |-> "log", w |-> 0, v |-> v, e |-> C[c].b]}
  /\ C' = [C EXCEPT ![c].pc = "docs"]
  /\ UNCHANGED <<R, proc, snap, lives, losses, snaps, mdoc, tomb, term, log, wkey, tok, acknowledged, sweeps>>

\* An operation reaches MongoDB, whenever that is.
Apply(o) ==
  /\ o \in ops
  /\ CASE o.t = "tomb" -> /\ tomb' = [tomb EXCEPT ![o.k] = IF Less(@.v, o.v) THEN [w |-> o.w, v |-> o.v] ELSE @]
                          /\ ops' = ops \ {o} /\ UNCHANGED <<mdoc, log>>
       [] o.t = "delete" -> /\ mdoc' = [mdoc EXCEPT ![o.k] = IF @.p /\ (VersionFilter => Less(@.v, o.v)) THEN [w |-> 0, p |-> FALSE, v |-> NoV] ELSE @]
                            /\ ops' = ops \ {o} /\ UNCHANGED <<tomb, log>>
       [] o.t = "upsert" ->
            /\ mdoc' = [mdoc EXCEPT ![o.k] = IF ~@.p \/ ~VersionFilter \/ Less(@.v, o.v) THEN [w |-> o.w, p |-> TRUE, v |-> o.v] ELSE @]
            /\ ops' = (ops \ {o}) \cup (IF ~mdoc[o.k].p /\ LookAfterInsert THEN {[o EXCEPT !.t = "lookup"]} ELSE {})
            /\ UNCHANGED <<tomb, log>>
       [] o.t = "lookup" -> /\ mdoc' = [mdoc EXCEPT ![o.k] = IF @.p /\ Less(o.v, tomb[o.k].v) /\ ~Less(tomb[o.k].v, @.v) THEN [w |-> 0, p |-> FALSE, v |-> NoV] ELSE @]
                            /\ ops' = ops \ {o} /\ UNCHANGED <<tomb, log>>
       [] o.t = "log" -> /\ log' = IF Less(log.v, o.v) THEN o.e ELSE log
                         /\ ops' = ops \ {o} /\ UNCHANGED <<mdoc, tomb>>
  /\ UNCHANGED <<R, proc, snap, lives, losses, snaps, term, C, wkey, tok, acknowledged, sweeps>>

Told(c) == {n \in 1..Len(wkey) : \E s \in C[c].segs : s[1] = tok[n][1] /\ tok[n][2] <= s[2]}

Ack(c) ==
  /\ C[c].pc = "docs" /\ OpsOf(c, V(c)) = {}
  /\ IF (LeaseInAck /\ ~Mine(c)) THEN C' = [C EXCEPT ![c] = Idle] /\ UNCHANGED <<R, acknowledged>>
     ELSE IF (AckedInAck /\ R.acked # C[c].left) \/ (LifeInAck /\ UseLife /\ ~SameLife(c))
     THEN C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "life"]] /\ UNCHANGED <<R, acknowledged>>
     ELSE LET last == C[c].upto[2] IN
          /\ R' = [R EXCEPT !.stream = SelectSeq(@, LAMBDA e : e.id > last),
                            !.acked = [v |-> V(c), life |-> C[c].upto[1], id |-> last]]
          /\ C' = [C EXCEPT ![c] = [Idle EXCEPT !.pc = "loop", !.term = C[c].term, !.batch = C[c].batch, !.life = C[c].life, !.left = R'.acked]]
          /\ acknowledged' = acknowledged \cup Told(c)
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, wkey, tok, sweeps>>

Sweep(k) ==
  /\ sweeps < MaxSweeps /\ ~Waits(R, k) /\ proc # 0 /\ R.life = proc /\ R.checked = R.life
  /\ \/ R.doc[k].p /\ ~(Alive(k) /\ mdoc[k].w = R.doc[k].w)
     \/ ~R.doc[k].p /\ mdoc[k].p /\ ~Alive(k)
  /\ R' = Append1(R, k) /\ sweeps' = sweeps + 1
  /\ UNCHANGED <<proc, snap, lives, losses, snaps, mdoc, tomb, term, log, ops, C, wkey, tok, acknowledged>>

Next == \/ \E k \in Keys, p \in BOOLEAN : Write(k, p)
        \/ Snapshot \/ Crash \/ Failback \/ Flush \/ ExpireLease
        \/ \E c \in Committers : Die(c) \/ TakeLease(c) \/ Learn(c) \/ BeginTerm(c) \/ Look(c) \/ EndGiveBack(c) \/ Check(c)
                                 \/ Read(c) \/ SendDocs(c) \/ Ack(c) \/ \E k \in Keys : GiveBack(c, k)
        \/ \E o \in ops : Apply(o)
        \/ \E k \in Keys : Sweep(k)

Spec == Init /\ [][Next]_vars

MaxAcked(k) == LET s == {n \in acknowledged : wkey[n] = k} IN IF s = {} THEN 0 ELSE CHOOSE n \in s : \A m \in s : m <= n

\* P1 to P4
AcknowledgedIsInMongo == \A k \in Keys : Eff(k) >= MaxAcked(k)
\* P6
CheckedRedisIsAsNew == (proc # 0 /\ R.life = proc /\ R.checked = R.life) => \A k \in Keys : R.doc[k].w >= MaxAcked(k)
\* P7, as far as Redis tells: a token of the last acknowledged life
TokensAreTrue == \A n \in 1..Len(tok) : (R.acked.life = tok[n][1] /\ tok[n][2] <= R.acked.id /\ proc # 0 /\ R.life = proc /\ R.checked = R.life) => Eff(wkey[n]) >= n
\* P5
Quiet == /\ ops = {} /\ R.stream = <<>> /\ proc # 0 /\ R.life = proc /\ R.checked = R.life
         /\ \A c \in Committers : C[c].pc \in {"idle", "loop"}
Converged == Quiet => \A k \in Keys : \/ R.doc[k].p /\ (Alive(k) /\ mdoc[k].w = R.doc[k].w)
                                      \/ ~R.doc[k].p
                                      \/ ENABLED Sweep(k) \/ sweeps >= MaxSweeps
Symmetry == Permutations(Committers)
=============================================================================
