"""What a build survives: kills, full disks, power failures, malformed files, hostile folders.

builds.py       a demo build, killed at random moments; on a disk that is full; two at once
disks.py        disks that are full or read-only
power.py        power failures while something is written
  writers.py      everything that writes, once: what is recorded
  syscalls.py     what a program does to files, by strace
  storage.py      a disk that loses what is not durable
malformed.py    readers of everything a user names, on files that are spoilt
  readers.py, release_readers.py      the readers, with good files of their own
  spoil.py        what is done to these
malicious.py    inputs that are made to harm: none may run, escape, or take the machine's memory
hostile.py      folders of strangers, with code in all places; audit.py watches what runs
run.py          all of it
"""
