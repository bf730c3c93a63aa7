// What `@stream-io/video-client` offers and the server does not have: each is answered with a 4xx of the clients' format.
//
// In: a client that is connected, a call. Out: names and requests, made by the client's own methods where it has one that does
// nothing else.

const time = '2027-01-15T08:00:00Z';

export const not_offered = (client, call) => {
  const path = `/call/${call.type}/${call.id}`;
  const of_call = {
    ring: () => call.ring(),
    accept: () => call.accept(),
    // `reject` and `join` do more than to ask: only their requests.
    reject: () => client.streamClient.post(`${path}/reject`, { reason: 'none' }),
    join: () => client.streamClient.post(`${path}/join`, { location: 'AMS' }),
    getRingState: () => call.getRingState('none'),
    sendReaction: () => call.sendReaction({ type: 'none' }),
    blockUser: () => call.blockUser('nobody'),
    unblockUser: () => call.unblockUser('nobody'),
    kickUser: () => call.kickUser({ user_id: 'nobody' }),
    muteUser: () => call.muteUser('nobody', 'audio'),
    muteAllUsers: () => call.muteAllUsers('audio'),
    startRecording: () => call.startRecording(),
    stopRecording: () => call.stopRecording(),
    listRecordings: () => call.listRecordings(),
    deleteRecording: () => call.deleteRecording('none', 'none.mp4'),
    requestPermission: () => client.streamClient.post(`${path}/request_permission`, { permissions: ['send-audio'] }),
    goLive: () => call.goLive(),
    stopLive: () => call.stopLive(),
    startHLS: () => call.startHLS(),
    stopHLS: () => call.stopHLS(),
    startRTMPBroadcasts: () => call.startRTMPBroadcasts({ broadcasts: [] }),
    stopAllRTMPBroadcasts: () => call.stopAllRTMPBroadcasts(),
    stopRTMPBroadcast: () => call.stopRTMPBroadcast('none'),
    startFrameRecording: () => call.startFrameRecording({}),
    stopFrameRecording: () => call.stopFrameRecording(),
    pinForEveryone: () => call.pinForEveryone({ user_id: 'nobody', session_id: 'none' }),
    unpinForEveryone: () => call.unpinForEveryone({ user_id: 'nobody', session_id: 'none' }),
    queryParticipants: () => call.queryParticipants(),
    getCallStats: () => call.getCallStats('none'),
    getCallReport: () => call.getCallReport('none'),
    getCallParticipantsStats: () => call.getCallParticipantsStats({ sessionId: 'none' }),
    getCallParticipantsStatsOfOne: () => call.getCallParticipantsStats({ sessionId: 'none', userSessionId: 'none' }),
    getCallStatsMap: () => call.getCallStatsMap({}, 'none'),
    // It asks the browser about itself, also in Node.
    submitFeedback: () => client.streamClient.post(`${path}/feedback`, { rating: 5, sdk: 'js', sdk_version: '0' }),
    sendCustomEvent: () => call.sendCustomEvent({ said: 'hello' }),
  };
  const of_client = {
    createGuestUser: () => client.createGuestUser({ user: { id: 'guest' } }),
    queryCallStats: () => client.queryCallStats(),
    queryAggregateCallStats: () => client.queryAggregateCallStats({ from: time }),
    edges: () => client.edges(),
    addDevice: () => client.addDevice('none', 'firebase'),
    getDevices: () => client.getDevices(),
    removeDevice: () => client.removeDevice('none'),
  };
  return Object.entries({ ...of_call, ...of_client });
};
