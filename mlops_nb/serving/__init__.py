"""The local online endpoint: a host that keeps everything running, and a front that takes the requests and splits the traffic."""
