# What Chef's docker cookbook and Test Kitchen (kitchen-dokken) ask of an engine through the docker-api gem.
# DOCKER_URL names the engine. The site is converged twice: the second time nothing may change. Prints "ok" at the end.
require 'docker'
require 'json'
require 'rubygems/package' # Debian's package has left it out
require 'shellwords'
require 'tempfile'

Docker.options = { host: nil, read_timeout: 30 } # excon 0.88 takes the empty host in Ruby 3.1's unix:/// for one
$changes = []

def changed(what)
  $changes << what
end

def check(what, seen, wanted)
  raise "#{what}: #{seen.inspect}, not #{wanted.inspect}" unless wanted === seen
end

def found
  yield
rescue Docker::Error::NotFoundError
  nil
end

def empty?(value)
  value.nil? || value == 0 || value == false || (value.respond_to?(:empty?) && value.empty?)
end

# Values of `wanted` that the engine answers otherwise; what it does not answer is at its default.
def differing(wanted, seen)
  wanted.reject { |key, value| seen[key] == value || (seen[key].nil? && empty?(value)) }.keys
end

def network(name, options)
  there = found { Docker::Network.get(name) }
  if there
    config = there.info['IPAM']['Config'][0]
    same = differing(options['IPAM']['Config'][0], config).empty? && there.info['Driver'] == options['Driver'] &&
           there.info['Internal'] == (options['Internal'] || false)
    return there if same
    there.delete
  end
  changed("network #{name}")
  Docker::Network.create(name, options)
end

def volume(name, options = {})
  found { Docker::Volume.get(name) } || (changed("volume #{name}") && Docker::Volume.create(name, options))
end

def image(name)
  return if Docker::Image.exist?(name)
  changed("image #{name}")
  yield
end

CONFIG = %w[Cmd Domainname Entrypoint ExposedPorts Healthcheck Hostname OpenStdin StdinOnce Tty User Volumes WorkingDir].freeze

def container(config)
  name = config['name']
  there = found { Docker::Container.get(name) }
  if there
    wrong = differing(config.slice(*CONFIG), there.info['Config']) + differing(config['HostConfig'], there.info['HostConfig'])
    own = there.info['Config']['Env'] - (Docker::Image.get(there.info['Image']).info['Config']['Env'] || [])
    wrong << 'Env' unless own.sort == config['Env'].sort
    base = Docker::Image.get(there.info['Image']).info['Config']['Labels'] || {}
    wrong << 'Labels' unless there.info['Config']['Labels'].reject { |key, value| base[key] == value } == config['Labels']
    warn "#{name} differs in #{wrong.inspect}" unless wrong.empty?
    unless wrong.empty?
      there.delete(force: true)
      there = nil
    end
  end
  unless there
    changed("container #{name}")
    there = Docker::Container.create(config)
  end
  return there if there.json['State']['Running']
  changed("start #{name}")
  there.start
  there
end

def connected(network, name, ip)
  info = Docker::Network.get(network).info['Containers'].values.find { |entry| entry['Name'] == name }
  return if info && info['IPv4Address'].split('/')[0] == ip
  changed("connect #{name}")
  Docker::Network.get(network).connect(name, {}, 'EndpointConfig' => { 'IPAMConfig' => { 'IPv4Address' => ip } })
end

def converge
  image('chef/built:1') do
    Docker::Image.build("FROM busybox\nLABEL from=image\nENV BASE=1\n").tag('repo' => 'chef/built', 'tag' => '1', 'force' => true)
  end
  image('chef/tagged:2') { Docker::Image.get('chef/built:1').tag('repo' => 'chef/tagged', 'tag' => '2', 'force' => true) }
  network('chef-net', 'Driver' => 'bridge', 'Options' => { 'a' => 'b' },
                      'IPAM' => { 'Driver' => 'default', 'Config' => [{ 'Subnet' => '10.216.1.0/24', 'Gateway' => '10.216.1.1' }] })
  network('chef-back', 'Driver' => 'bridge', 'Internal' => true, 'IPAM' => { 'Config' => [{ 'Subnet' => '10.216.2.0/24' }] })
  volume('chef-data', 'Labels' => { 'a' => '1' })
  container(
    'name' => 'chef-web', 'Image' => 'chef/built:1', 'Labels' => { 'role' => 'web' }, 'Cmd' => %w[sleep 1000],
    'AttachStderr' => false, 'AttachStdin' => false, 'AttachStdout' => false, 'Domainname' => '', 'Entrypoint' => nil,
    'Env' => ['A=1', 'B='], 'ExposedPorts' => { '8080/tcp' => {} }, 'Hostname' => 'web',
    'Healthcheck' => { 'Test' => %w[CMD true], 'Interval' => 60_000_000_000, 'Retries' => 3 },
    'MacAddress' => nil, 'NetworkDisabled' => false, 'OpenStdin' => false, 'StdinOnce' => false, 'Tty' => true,
    'User' => 'root', 'Volumes' => nil, 'WorkingDir' => '/tmp',
    'HostConfig' => {
      'Binds' => ['chef-data:/data', '/tmp:/host:ro'], 'CapAdd' => %w[CAP_NET_ADMIN], 'CapDrop' => %w[CAP_MKNOD],
      'CgroupParent' => '', 'CgroupnsMode' => 'host', 'CpuShares' => 200, 'CpusetCpus' => '0', 'Devices' => [],
      'Dns' => ['192.0.2.53'], 'DnsSearch' => ['corp.test'], 'ExtraHosts' => ['other:192.0.2.7'], 'IpcMode' => 'shareable',
      'Init' => nil, 'KernelMemory' => 0, 'Links' => nil, 'LogConfig' => { 'Type' => 'json-file', 'Config' => { 'max-size' => '1m' } },
      'Memory' => 67_108_864, 'MemorySwap' => 134_217_728, 'MemorySwappiness' => 0, 'MemoryReservation' => 0,
      'NanoCpus' => 500_000_000, 'NetworkMode' => 'chef-net', 'OomKillDisable' => false, 'OomScoreAdj' => 7,
      'Privileged' => false, 'PidMode' => '', 'PortBindings' => { '8080/tcp' => [{ 'HostIp' => '127.0.0.1', 'HostPort' => '' }] },
      'PublishAllPorts' => false, 'RestartPolicy' => { 'Name' => 'unless-stopped', 'MaximumRetryCount' => 0 },
      'ReadonlyRootfs' => true, 'Runtime' => 'runc', 'SecurityOpt' => ['no-new-privileges'], 'ShmSize' => 67_108_864,
      'Sysctls' => { 'net.ipv4.ip_forward' => '1' }, 'Tmpfs' => { '/run' => 'size=1m' },
      'Ulimits' => [{ 'Name' => 'nofile', 'Soft' => 100, 'Hard' => 200 }], 'UsernsMode' => '', 'UTSMode' => '',
      'VolumesFrom' => nil, 'VolumeDriver' => ''
    },
    'NetworkingConfig' => { 'EndpointsConfig' => { 'chef-net' => { 'IPAMConfig' => { 'IPv4Address' => '10.216.1.9' }, 'Aliases' => ['www'] } } }
  )
  container('name' => 'chef-tool', 'Image' => 'chef/tagged:2', 'Labels' => {}, 'Cmd' => %w[sleep 1000], 'Env' => [],
            'HostConfig' => { 'NetworkMode' => 'bridge', 'IpcMode' => 'shareable', 'MemorySwappiness' => 0, 'CgroupnsMode' => 'host' })
  connected('chef-back', 'chef-tool', '10.216.2.7')
end

# What Test Kitchen does with an instance: commands, files, commits, logs, events.
def kitchen
  box = Docker::Container.get('chef-web')
  out, err, code = box.exec(['sh', '-c', 'echo out; echo err >&2; exit 3'])
  check('exec', [out.join, err.join, code], ["out\n", "err\n", 3])
  streamed = +''
  box.exec(%w[echo streamed], tty: false) { |_stream, chunk| streamed << chunk }
  check('streamed exec', streamed, "streamed\n")
  out, = box.exec(%w[cat], stdin: StringIO.new('piped'))
  check('exec with stdin', out.join, 'piped')
  exec = Docker::Exec.create('Container' => box.id, 'Cmd' => %w[true], 'AttachStdout' => true)
  exec.start!
  check('exec inspect', exec.json.values_at('Running', 'ExitCode'), [false, 0])
  tool = Docker::Container.get('chef-tool')
  tool.store_file('/tmp/stored', content: 'kept', permissions: 0o640)
  check('read_file', tool.read_file('/tmp/stored'), 'kept')
  parts = +''
  tool.archive_out('/tmp/stored') { |chunk| parts << chunk }
  check('archive_out', parts.include?('kept'), true)
  check('changes', tool.changes.any? { |change| change['Path'] == '/tmp/stored' }, true)
  check('top', tool.top[0]['CMD'] || tool.top[0]['COMMAND'], /sleep/)
  check('stats', tool.stats['memory_stats']['usage'], Integer)
  made = tool.commit('repo' => 'chef/committed', 'tag' => '1', 'comment' => 'by kitchen')
  check('commit', Docker::Image.get('chef/committed:1').id.include?(made.id.delete_prefix('sha256:')), true)
  check('history', Docker::Image.get('chef/committed:1').history[0]['Comment'], 'by kitchen')
  one = Docker::Container.create('name' => 'chef-once', 'Image' => 'chef/committed:1', 'Cmd' => ['cat', '/tmp/stored'])
  out, = one.tap(&:start).attach(logs: true, stream: true)
  check('attach', out.join, 'kept')
  check('wait', one.wait(30)['StatusCode'], 0)
  check('logs', one.logs(stdout: true).end_with?('kept'), true)
  one.rename('chef-renamed')
  check('rename', Docker::Container.get('chef-renamed').id.start_with?(one.id[0, 12]), true)
  one.delete(force: true, v: true)
  events = []
  Docker::Event.since(0, until: Time.now.to_i + 1, filters: { container: [one.id] }.to_json) { |event| events << event.Action }
  check('events', (events & %w[create start attach die rename destroy]).sort, %w[attach create destroy die rename start])
  Docker::Image.get('chef/committed:1').remove(force: true)
  tool.pause
  check('paused', tool.json['State']['Paused'], true)
  tool.unpause
  tool.restart('timeout' => 0)
  tool.kill(signal: 'SIGKILL')
  check('killed', tool.wait(30)['StatusCode'], 137)
  tool.start
  file = Tempfile.new('saved')
  Docker::Image.save('chef/built:1', file.path)
  Docker::Image.load(file.path)
  check('search by name', Docker::Image.all('filters' => { reference: ['chef/built'] }.to_json).size, 1)
  check('containers', Docker::Container.all(all: true, filters: { name: ['chef-'] }.to_json).size, 2)
  check('info', Docker.info['OSType'], 'linux')
  check('version', Docker.version['ApiVersion'], String)
  check('ping', Docker.ping, 'OK')
  begin
    Docker::Container.create('name' => 'chef-web', 'Image' => 'chef/built:1')
    raise 'a name was given twice'
  rescue Docker::Error::ConflictError => e
    check('conflict', e.message, /already in use/)
  end
  begin
    Docker::Container.create('Image' => 'chef/nosuch')
    raise 'an image was there'
  rescue Docker::Error::NotFoundError => e
    check('no image', e.message, /No such image/)
  end
end

def remove
  %w[chef-web chef-tool chef-once chef-renamed].each { |name| found { Docker::Container.get(name).delete(force: true, v: true) } }
  %w[chef-net chef-back].each { |name| found { Docker::Network.get(name).delete } }
  found { Docker::Volume.get('chef-data').remove }
  %w[chef/committed:1 chef/tagged:2 chef/built:1].each { |name| found { Docker::Image.get(name).remove(force: true, name: name) } }
end

begin
  converge
  check('first', $changes.size, 10)
  $changes.clear
  converge
  check('second', $changes, [])
  kitchen
  $changes.clear
  converge
  check('third', $changes, [])
ensure
  remove
end
check('left', Docker::Container.all(all: true, filters: { name: ['chef-'] }.to_json).size, 0)
puts 'ok'
