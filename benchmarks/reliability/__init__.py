"""What a build survives: malformed inputs, kills, full disks, two at once.

malformed.py    readers of everything a user names, on files with flipped, cut and added bytes
malicious.py    inputs that are made to harm: none may run, escape, or take the machine's memory
disks.py        disks that are full or read-only
builds.py       a demo build, killed at random moments; on a disk that is full; two at once
"""
